// The stand-in's OAuth server before `oauth4webapi`: each thing that it allows beside what it refuses. What the sidecar
// makes of the answers stands in `tests/it/login`.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as oauth from 'oauth4webapi';
import {
  CALLBACK, SCOPE, api, believeAgain, believer, discover, document, get, logIn, read, redeem, review, secret, tell, token, wish, world,
} from './oauth.mjs';

// A code that somebody got for a wish.
async function given(change) {
  const as = await discover();
  const asked = await wish(as, change);
  return { as, asked, callback: await logIn(asked.url) };
}

// The client is told by 400, in JSON, and by no challenge of HTTP.
async function refused({ as, asked, callback }, more, word, verifier = asked.verifier) {
  const answer = await redeem(as, callback, { ...asked, verifier }, more);
  assert.equal(answer.status, 400);
  assert.match(answer.headers.get('content-type'), /^application\/json/);
  assert.equal(answer.headers.get('www-authenticate'), null);
  await assert.rejects(read(as, answer, more.id), { error: word });
}

// With everything right the code is redeemed: whatever was refused before did not use it up.
async function redeemed({ as, asked, callback }, more = {}, verifier = asked.verifier) {
  const answer = await redeem(as, callback, { ...asked, verifier }, more);
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get('cache-control'), /no-store/);
  return read(as, answer, more.id);
}

// The browser comes back to the client with an error, and with the state.
async function comesBackWith(change, word) {
  const { as, asked, callback } = await given(change);
  assert.equal(callback.origin + callback.pathname, CALLBACK);
  assert.equal(callback.searchParams.get('code'), null);
  assert.throws(() => oauth.validateAuthResponse(as, { client_id: world.client }, callback, asked.state), { error: word });
}

// Nobody is sent anywhere.
async function staysHere(change, word) {
  for (const method of ['GET', 'POST']) {
    const { url } = await wish(await discover(), change);
    const body = method === 'POST' ? url.searchParams : undefined;
    const headers = body ? { 'content-type': 'application/x-www-form-urlencoded' } : {};
    const answer = await get(body ? url.origin + url.pathname : url, { method, body, headers });
    assert.equal(answer.status, 400);
    assert.match(answer.headers.get('content-type'), /^application\/json/);
    assert.equal((await answer.json()).error, word);
    assert.equal(answer.headers.get('location'), null);
  }
}

// Where a code may be sent. CALLBACK is registered.
for (const [what, uri] of Object.entries({
  'the registered one': CALLBACK,
  'one below it': `${CALLBACK}/below`,
  'one two below it': `${CALLBACK}/below/again`,
  'with a query': `${CALLBACK}?x=1`,
})) {
  test(`redirect URI, ${what}: allowed`, async () => {
    const code = await given({ redirect_uri: uri });
    assert.ok(code.callback.href.startsWith(uri), code.callback.href);
    assert.ok((await redeemed(code, { at: uri })).access_token);
  });
}

test('redirect URI, escaped once more: allowed, as it is unescaped twice', async () => {
  const code = await given({ redirect_uri: CALLBACK.replace('callback', '%63allback') });
  assert.equal(code.callback.origin + code.callback.pathname, CALLBACK);
  assert.ok((await redeemed(code)).access_token);
});

for (const [what, uri] of Object.entries({
  'a sibling': 'https://app.example/-/other',
  'one that begins alike': `${CALLBACK}2`,
  'the one above': 'https://app.example/-/',
  'the bare host': 'https://app.example/',
  'dots that climb': `${CALLBACK}/../other`,
  'dots at the end': `${CALLBACK}/..`,
  'dots escaped once more': `${CALLBACK}/%2e%2e/other`,
  'another case of the path': 'https://app.example/-/Callback',
  'another host': 'https://evil.example/-/callback',
  'a host below': 'https://a.app.example/-/callback',
  'a host that begins alike': 'https://app.example.evil.example/-/callback',
  'another case of the host': 'https://APP.example/-/callback',
  'another port': 'https://app.example:8443/-/callback',
  'the port that is meant anyway': 'https://app.example:443/-/callback',
  'another scheme': 'http://app.example/-/callback',
  'a scheme of scripts': 'javascript://app.example/-/callback',
  'no scheme': '//app.example/-/callback',
  'no host': '/-/callback',
  'a fragment': `${CALLBACK}#x`,
  'an empty fragment': `${CALLBACK}#`,
  'a fragment below it': `${CALLBACK}/below#x`,
  'a fragment behind a query': `${CALLBACK}?x=1#y`,
  'userinfo': 'https://ada@app.example/-/callback',
  'userinfo with a password': 'https://ada:x@app.example/-/callback',
  'userinfo that looks like the host': 'https://app.example@evil.example/-/callback',
  'a backslash before another host': 'https://app.example\\@evil.example/-/callback',
})) {
  test(`redirect URI, ${what}: refused`, () => staysHere({ redirect_uri: uri }, 'invalid_request'));
}

test('redirect URI, another port of the loopback for an app on a desk: allowed', async () => {
  const uri = 'http://127.0.0.1:4321/back';
  const { callback } = await given({ client_id: 'native', redirect_uri: uri });
  assert.ok(callback.href.startsWith(`${uri}?code=`), callback.href);
});
for (const [what, uri] of Object.entries({
  'another path of the loopback': 'http://127.0.0.1:4321/other',
  'another name of the loopback': 'http://localhost/back',
  'a host that begins like the loopback': 'http://127.0.0.1.evil.example/back',
  'the loopback by TLS': 'https://127.0.0.1/back',
})) {
  test(`redirect URI, ${what}: refused`, () => staysHere({ client_id: 'native', redirect_uri: uri }, 'invalid_request'));
}

test('client, an account with an address: allowed', async () => {
  assert.ok((await token({ client_id: world.other }, { id: world.other, by: secret(world.foreign) })).access_token);
});
for (const [what, id] of Object.entries({
  'nobody': 'system:serviceaccount:perses:nobody', 'an account without an address': world.bare, 'a person': 'ada', 'none': undefined,
})) {
  test(`client, ${what}: refused`, () => staysHere({ client_id: id }, 'unauthorized_client'));
}

test('response type, code: allowed', async () => assert.match((await given()).callback.searchParams.get('code'), /^sha256~/));
for (const kind of ['id_token', 'code id_token', undefined]) {
  test(`response type, ${kind ?? 'none'}: refused`, () => comesBackWith({ response_type: kind }, 'unsupported_response_type'));
}

// What becomes of a code.
test('code, first use: allowed', async () => {
  const answer = await redeemed(await given());
  assert.equal(answer.token_type, 'bearer');
  assert.equal(answer.scope, SCOPE);
  assert.match(answer.access_token, /^sha256~[A-Za-z0-9_-]{43}$/);
  assert.equal(answer.refresh_token, undefined);
  assert.equal(answer.id_token, undefined);
});

test('code, second use: refused', async () => {
  const code = await given();
  await redeemed(code);
  await refused(code, {}, 'invalid_grant');
});

test('code, by another client: refused, and still good for the one it was given to', async () => {
  const code = await given();
  await refused(code, { id: world.other, by: secret(world.foreign) }, 'invalid_grant');
  await refused(code, { id: 'console', by: secret(world.console_secret) }, 'invalid_grant');
  assert.ok((await redeemed(code)).access_token);
});

test('code, made up or empty: refused', async () => {
  const code = await given();
  for (const other of [`sha256~${'A'.repeat(43)}`, 'x']) await refused(code, { code: other }, 'invalid_grant');
  const words = { redirect_uri: CALLBACK, code_verifier: code.asked.verifier };
  for (const more of [{}, { code: '' }]) {
    const answer = await oauth.genericTokenEndpointRequest(
      code.as, { client_id: world.client }, secret(), 'authorization_code', { ...words, ...more }, { [oauth.customFetch]: get },
    );
    assert.equal(answer.status, 400);
    assert.equal((await answer.json()).error, 'invalid_grant');
  }
  assert.ok((await redeemed(code)).access_token);
});

test('code, within five minutes: allowed', async () => {
  const code = await given();
  await tell('advance', { seconds: 280 });
  assert.ok((await redeemed(code)).access_token);
});

test('code, after five minutes: refused', async () => {
  const code = await given();
  await tell('advance', { seconds: 300 });
  await refused(code, {}, 'invalid_grant');
});

for (const [what, at] of Object.entries({
  'below the one before': `${CALLBACK}/below`, 'another query': `${CALLBACK}?x=1`, 'another host': 'https://evil.example/-/callback',
})) {
  test(`redirect URI at the token endpoint, ${what}: refused, and the code still good`, async () => {
    const code = await given();
    await refused(code, { at }, 'invalid_request');
    assert.ok((await redeemed(code)).access_token);
  });
}

test('redirect URI at the token endpoint, the one above the one before: refused', async () => {
  const code = await given({ redirect_uri: `${CALLBACK}/below` });
  await refused(code, {}, 'invalid_request');
  assert.ok((await redeemed(code, { at: `${CALLBACK}/below` })).access_token);
});

test('redirect URI at the token endpoint, none: refused, and the code still good', async () => {
  const code = await given();
  const answer = await oauth.genericTokenEndpointRequest(
    code.as, { client_id: world.client }, secret(), 'authorization_code',
    { code: code.callback.searchParams.get('code'), code_verifier: code.asked.verifier }, { [oauth.customFetch]: get },
  );
  assert.equal(answer.status, 400);
  assert.equal((await answer.json()).error, 'invalid_request');
  assert.ok((await redeemed(code)).access_token);
});

test('verifier, another one: refused, and the code still good', async () => {
  const code = await given();
  await refused(code, {}, 'invalid_grant', oauth.generateRandomCodeVerifier());
  // The challenge itself proves nothing.
  await refused(code, {}, 'invalid_grant', code.asked.url.searchParams.get('code_challenge'));
  assert.ok((await redeemed(code)).access_token);
});

test('verifier, none where a challenge was sent: refused, and the code still good', async () => {
  const code = await given();
  await refused(code, {}, 'invalid_request', oauth.nopkce);
  assert.ok((await redeemed(code)).access_token);
});

test('verifier, none where no challenge was sent: allowed', async () => {
  const code = await given({ code_challenge: undefined, code_challenge_method: undefined });
  assert.ok((await redeemed(code, {}, oauth.nopkce)).access_token);
});

for (const [what, verifier] of Object.entries({
  'of 42': 'a'.repeat(42), 'of 129': 'a'.repeat(129), 'with other letters': `${'a'.repeat(42)}+`,
})) {
  test(`verifier, ${what}: refused, and the code still good`, async () => {
    const code = await given();
    await refused(code, {}, 'invalid_request', verifier);
    assert.ok((await redeemed(code)).access_token);
  });
}

// Challenges. Such as are plain are their own verifiers.
for (const [what, text] of Object.entries({
  'of 43': 'a'.repeat(43), 'of 128': 'a'.repeat(128), 'with all the letters': 'AZaz09-._~'.repeat(5),
})) {
  test(`challenge, ${what}: allowed`, async () => {
    const code = await given({ code_challenge: text, code_challenge_method: 'plain' });
    await refused(code, {}, 'invalid_grant', `b${text.slice(1)}`);
    assert.ok((await redeemed(code, {}, text)).access_token);
  });
}
for (const [what, text] of Object.entries({
  'of 42': 'a'.repeat(42), 'of 129': 'a'.repeat(129), 'with a plus': `${'a'.repeat(43)}+`, 'with a slash': `${'a'.repeat(43)}/`,
  'with padding': `${'a'.repeat(43)}=`, 'with a space': `${'a'.repeat(43)} `, 'with an umlaut': `${'a'.repeat(43)}ä`,
})) {
  for (const method of ['S256', 'plain', undefined]) {
    const words = { code_challenge: text, code_challenge_method: method };
    test(`challenge, ${what}, by ${method ?? 'no method'}: refused`, () => comesBackWith(words, 'invalid_request'));
  }
}

test('challenge method, S256: allowed', async () => assert.ok((await redeemed(await given())).access_token));
for (const method of ['plain', undefined]) {
  test(`challenge method, ${method ?? 'none, which means plain'}: allowed`, async () => {
    const verifier = oauth.generateRandomCodeVerifier();
    const code = await given({ code_challenge: verifier, code_challenge_method: method });
    assert.ok((await redeemed(code, {}, verifier)).access_token);
  });
  test(`challenge method, ${method ?? 'none'} with a digest: the digest's origin is refused`, async () => {
    const code = await given({ code_challenge_method: method });
    await refused(code, {}, 'invalid_grant');
    assert.ok((await redeemed(code, {}, code.asked.url.searchParams.get('code_challenge'))).access_token);
  });
}
for (const method of ['S512', 's256', 'Plain']) {
  test(`challenge method, ${method}: refused`, () => comesBackWith({ code_challenge_method: method }, 'invalid_request'));
}

// What a client proves itself with.
const ways = { 'in the form': oauth.ClientSecretPost, 'by HTTP Basic': oauth.ClientSecretBasic };
for (const [way, by] of Object.entries(ways)) {
  for (const [what, text] of Object.entries({
    'a token of its account': world.secret, 'a token with a private audience': world.private,
  })) {
    test(`secret, ${what}, ${way}: allowed`, async () => assert.ok((await redeemed(await given(), { by: by(text) })).access_token));
  }
  for (const [what, text] of Object.entries({
    'a wrong one': 'wrong', 'a token of another account': world.foreign, 'a token of an account that is no client': world.bare_secret,
    'a token that has ended': world.ended, 'a person\'s token': world.full, 'another client\'s secret': world.console_secret,
  })) {
    test(`secret, ${what}, ${way}: refused, and the code still good`, async () => {
      const code = await given();
      await refused(code, { by: by(text) }, 'unauthorized_client');
      assert.ok((await redeemed(code)).access_token);
    });
  }
}

test('secret, none: refused, and the code still good', async () => {
  const code = await given();
  await refused(code, { by: oauth.None() }, 'unauthorized_client');
  assert.ok((await redeemed(code)).access_token);
});

test('secret, its own under another client\'s name: refused', async () => {
  const code = await given();
  await refused(code, { id: world.other }, 'unauthorized_client');
  await refused(code, { id: 'console' }, 'unauthorized_client');
  assert.ok((await redeemed(code)).access_token);
});

test('secret, the token with a private audience at the API: refused', async () => {
  assert.ok(!(await review(world.private)).authenticated);
  assert.equal((await api('/apis/user.openshift.io/v1/users/~', world.private)).status, 401);
  assert.equal((await review(world.private, ['login'])).authenticated, true);
});

// Scopes.
for (const scope of [...SCOPE.split(' '), SCOPE, 'user:list-scoped-projects', 'role:view:perses', 'role:edit:perses:!']) {
  test(`scope, ${scope} for an account: allowed`, async () => assert.equal((await token({ scope })).scope, scope));
}
for (const scope of ['user:full', 'user:info user:full', undefined, 'role:view:team-a', 'role:view:*']) {
  test(`scope, ${scope ?? 'none, which means all'} for an account: refused`, () => comesBackWith({ scope }, 'access_denied'));
}
for (const scope of ['user:full', undefined]) {
  test(`scope, ${scope ?? 'none, which means all'} for an administrator's client: allowed`, async () => {
    const more = { id: 'console', by: secret(world.console_secret) };
    assert.equal((await token({ client_id: 'console', scope }, more)).scope, 'user:full');
  });
}
for (const scope of ['user:everything', 'user:info openid', 'role:view', 'USER:INFO']) {
  test(`scope, ${scope}: unknown`, () => comesBackWith({ scope }, 'invalid_scope'));
}

// Approval.
const APPROVAL = 'Authorize Access';
async function asks(to, work) {
  await tell('grant', { to });
  try {
    await work();
  } finally {
    await tell('grant', { to: 'auto' });
  }
}

test('approval, denied: refused with the state, and asked again the next time', () => asks('prompt', async () => {
  const as = await discover();
  for (let round = 0; round < 2; round += 1) {
    const asked = await wish(as);
    const pages = [];
    const denied = await logIn(asked.url, { press: 'deny', pages });
    assert.equal(pages.at(-1), APPROVAL);
    assert.equal(denied.searchParams.get('code'), null);
    assert.throws(() => oauth.validateAuthResponse(as, { client_id: world.client }, denied, asked.state), { error: 'access_denied' });
  }
}));

test('approval, given: allowed, and asked once for each set of scopes', () => asks('prompt', async () => {
  for (const [scope, asked] of [[SCOPE, true], [SCOPE, false], ['user:info', true], ['user:info', false]]) {
    const as = await discover();
    const wished = await wish(as, { scope });
    const pages = [];
    const callback = await logIn(wished.url, { pages });
    assert.equal(pages.includes(APPROVAL), asked, scope);
    assert.equal((await read(as, await redeem(as, callback, wished))).scope, scope);
  }
}));

test('approval, for nobody: refused without a question', () => asks('deny', () => comesBackWith({}, 'access_denied')));

// How long a token lives.
const living = async ({ access_token: text }) => (await review(text)).authenticated === true;
async function lasting(words, work) {
  await tell('lifetime', words);
  try {
    await work(await token());
  } finally {
    await tell('lifetime', { seconds: 86_400 });
  }
}

test('lifetime, a day: said, and kept', () => lasting({ seconds: 86_400 }, async (answer) => {
  assert.equal(answer.expires_in, 86_400);
  await tell('advance', { seconds: 86_300 });
  assert.ok(await living(answer));
  await tell('advance', { seconds: 101 });
  assert.ok(!(await living(answer)));
}));
test('lifetime, 0: said, and for ever', () => lasting({ seconds: 0 }, async (answer) => {
  assert.equal(answer.expires_in, 0);
  await tell('advance', { seconds: 10_000_000 });
  assert.ok(await living(answer));
}));
test('lifetime, none: nothing said, and for ever', () => lasting({}, async (answer) => {
  assert.equal(answer.expires_in, undefined);
  await tell('advance', { seconds: 10_000_000 });
  assert.ok(await living(answer));
}));

test('inactivity, presented within it: lives', async () => {
  await tell('inactivity', { seconds: 300 });
  const answer = await token();
  await tell('inactivity');
  for (let round = 0; round < 3; round += 1) {
    await tell('advance', { seconds: 280 });
    assert.ok(await living(answer));
  }
});
test('inactivity, left alone: ends, and stays so', async () => {
  await tell('inactivity', { seconds: 300 });
  const answer = await token();
  await tell('inactivity');
  assert.ok(await living(answer));
  await tell('advance', { seconds: 301 });
  assert.ok(!(await living(answer)));
  assert.ok(!(await living(answer)));
  assert.ok(await living(await token()), 'who logs in again is in');
});

// Failures that tests of clients ask for: each is what it says, to a client of others too, and over when it is over.
for (const [what, words, status, kind] of [
  ['500 in plain text', { status: 500, kind: 'text/plain', body: 'Error: something' }, 500, 'text/plain'],
  ['a page', { status: 200, kind: 'text/html', body: '<html>' }, 200, 'text/html'],
  ['JSON that ends early', { how: 'truncated' }, 200, 'application/json'],
  ['a redirect', { how: 'redirect', to: 'https://evil.example/token' }, 302, 'text/html'],
]) {
  test(`token endpoint, ${what}: no token, and the code still good`, async () => {
    const code = await given();
    await tell('fault', { at: 'token', ...words });
    const answer = await redeem(code.as, code.callback, code.asked);
    await tell('fault', { at: 'token' });
    assert.deepEqual([answer.status, answer.headers.get('content-type')], [status, kind]);
    assert.equal(answer.headers.get('location'), words.to ?? null);
    await assert.rejects(read(code.as, answer));
    assert.ok((await redeemed(code)).access_token);
  });
}
for (const [what, how, error] of [
  ['no answer at all', 'hang', { name: 'AbortError' }], ['a connection that ends', 'reset', { code: 'ECONNRESET' }],
]) {
  test(`token endpoint, ${what}: no token, and the code still good`, async () => {
    const code = await given();
    await tell('fault', { at: 'token', how });
    await assert.rejects(redeem(code.as, code.callback, code.asked, { signal: AbortSignal.timeout(1000) }), error);
    await tell('fault', { at: 'token' });
    assert.ok((await redeemed(code)).access_token);
  });
}

test('grant, of any other kind: refused', async () => {
  const as = await discover();
  const client = { client_id: world.client };
  const options = { [oauth.customFetch]: get };
  const answer = await oauth.refreshTokenGrantRequest(as, client, secret(), 'x', options);
  assert.equal(answer.status, 400);
  await assert.rejects(oauth.processRefreshTokenResponse(as, client, answer), { error: 'access_denied' });
  const own = await oauth.clientCredentialsGrantRequest(as, client, secret(), {}, options);
  assert.equal(own.status, 400);
  await assert.rejects(oauth.processClientCredentialsResponse(as, client, own), { error: 'access_denied' });
  for (const [kind, word] of [['password', 'access_denied'], ['magic', 'unsupported_grant_type']]) {
    const other = await oauth.genericTokenEndpointRequest(as, client, secret(), kind, { username: 'ada', password: 'x' }, options);
    await assert.rejects(oauth.processGenericTokenEndpointResponse(as, client, other), { error: word });
  }
});

test('discovery, there: what RFC 8414 says, without what OpenShift lacks', async () => {
  const as = await discover();
  assert.deepEqual(as.code_challenge_methods_supported, ['plain', 'S256']);
  assert.deepEqual(as.grant_types_supported, ['authorization_code', 'implicit']);
  for (const missing of ['jwks_uri', 'userinfo_endpoint', 'introspection_endpoint', 'revocation_endpoint', 'end_session_endpoint']) {
    assert.equal(as[missing], undefined, missing);
  }
});

test('discovery, none: 404, and there again', async () => {
  await tell('discovery', { to: 'missing' });
  assert.equal((await document()).status, 404);
  await assert.rejects(discover());
  await tell('discovery', { to: 'present' });
  assert.ok((await discover()).token_endpoint);
});

test('discovery, 500: no document, and there again', async () => {
  await tell('fault', { at: 'discovery', status: 500, kind: 'text/plain', body: 'Error: something' });
  assert.equal((await document()).status, 500);
  await assert.rejects(discover());
  await tell('fault', { at: 'discovery' });
  assert.ok((await discover()).token_endpoint);
});

test('discovery, no answer at all: no document, and there again', async () => {
  await tell('fault', { at: 'discovery', how: 'hang' });
  await assert.rejects(document({ signal: AbortSignal.timeout(1000) }), { name: 'AbortError' });
  await tell('fault', { at: 'discovery' });
  assert.ok((await discover()).token_endpoint);
});

test('discovery, other endpoints from now on: people log in there', async () => {
  const before = await discover();
  const answer = await fetch(`${world.stand_in}/-/stand-in/move`, { method: 'POST' });
  world.oauth = await answer.text();
  const after = await discover();
  for (const name of ['issuer', 'authorization_endpoint', 'token_endpoint']) {
    assert.notEqual(after[name], before[name]);
    assert.ok(after[name].startsWith(world.oauth), name);
  }
  assert.ok(await living(await token()));
});

test('authority, another one: not believed before, believed once it is read again, and published by the API', async () => {
  const before = believer();
  assert.equal((await get(`${world.oauth}/healthz`, { as: before })).status, 200);
  before.destroy();
  await tell('authority');
  await assert.rejects(get(`${world.oauth}/healthz`, { as: before }), (error) => /VERIFY|CERT|ISSUER/.test(error.code));
  believeAgain();
  assert.equal((await get(`${world.oauth}/healthz`)).status, 200);
  assert.ok(await living(await token()));
  const published = await api('/api/v1/namespaces/openshift-config-managed/configmaps/oauth-serving-cert', world.full);
  assert.equal((await published.json()).data['ca-bundle.crt'], readFileSync(world.ca_files[1], 'utf8'));
});

test('logout, by GET: refused', async () => assert.equal((await get(`${world.oauth}/logout`)).status, 405));
test('logout, by POST: allowed', async () => assert.equal((await get(`${world.oauth}/logout`, { method: 'POST' })).status, 200));
