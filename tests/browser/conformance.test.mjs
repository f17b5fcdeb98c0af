// The stand-in's OAuth server before `oauth4webapi`, which knows the standards and nothing of us.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { test } from 'node:test';
import * as oauth from 'oauth4webapi';

const world = JSON.parse(readFileSync(process.env.WORLD, 'utf8'));
const CALLBACK = 'https://app.example/-/callback';
const SCOPE = 'user:info user:check-access user:list-projects';
const agent = new Agent({ ca: world.ca_files.map((file) => readFileSync(file)), keepAlive: true });

// `fetch` with our authorities, without following anybody.
function get(url, { method = 'GET', headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const asked = request(url, { method, headers: Object.fromEntries(new Headers(headers)), agent }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part)).on('end', () => {
        const headers = new Headers();
        for (let at = 0; at < answer.rawHeaders.length; at += 2) headers.append(answer.rawHeaders[at], answer.rawHeaders[at + 1]);
        const empty = [204, 304].includes(answer.statusCode);
        resolve(new Response(empty ? null : Buffer.concat(parts), { status: answer.statusCode, headers }));
      });
    });
    asked.on('error', reject).end(body === undefined ? undefined : String(body));
  });
}
const options = { [oauth.customFetch]: get };

// The document says who it is by itself; the address that serves it is the API server's.
async function discover() {
  const answer = await get(`${world.cluster}/.well-known/oauth-authorization-server`);
  assert.equal(answer.status, 200);
  return oauth.processDiscoveryResponse(new URL(world.oauth), answer);
}

async function wish(as, change = {}) {
  const verifier = oauth.generateRandomCodeVerifier();
  const state = oauth.generateRandomState();
  const url = new URL(as.authorization_endpoint);
  const words = {
    client_id: world.client, redirect_uri: CALLBACK, response_type: 'code', scope: SCOPE, state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', ...change,
  };
  for (const [name, value] of Object.entries(words)) if (value !== undefined) url.searchParams.set(name, value);
  return { url, verifier, state };
}

// A person at a browser without scripts: gives the address on the client's side.
async function logIn(url, press = 'approve') {
  const jar = new Map();
  let next = { url, method: 'GET' };
  for (let step = 0; step < 10; step += 1) {
    if (!next.url.href.startsWith(world.oauth)) return next.url;
    const headers = { cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; ') };
    if (next.body) headers['content-type'] = 'application/x-www-form-urlencoded';
    const answer = await get(next.url, { ...next, headers });
    for (const line of answer.headers.getSetCookie()) {
      const [name, value] = line.split(';')[0].split('=');
      if (value) jar.set(name, value); else jar.delete(name);
    }
    if (answer.status === 302) {
      next = { url: new URL(answer.headers.get('location'), next.url), method: 'GET' };
      continue;
    }
    const page = await answer.text();
    assert.equal(answer.status, 200, page);
    const form = new URLSearchParams();
    for (const [, name, value] of page.matchAll(/<input type=hidden name=(\w+) value="([^"]*)">/g)) form.set(name, value.replaceAll('&amp;', '&'));
    if (page.includes('name=password')) {
      form.set('username', 'ada');
      form.set('password', world.users.ada.password);
    } else {
      form.set(press, 'yes');
    }
    next = { url: new URL(page.match(/action=([^ >]+)/)[1], next.url), method: 'POST', body: form };
  }
  throw new Error('no end');
}

const client = { client_id: world.client };
const secret = (text = world.secret) => oauth.ClientSecretPost(text);

async function redeem(as, callback, { verifier, state }, authentication = secret()) {
  const parameters = oauth.validateAuthResponse(as, client, callback, state);
  return oauth.authorizationCodeGrantRequest(as, client, authentication, parameters, CALLBACK, verifier, options);
}

async function token(change) {
  const as = await discover();
  const asked = await wish(as, change);
  const answer = await redeem(as, await logIn(asked.url), asked);
  return oauth.processAuthorizationCodeResponse(as, client, answer);
}

test('discovery is what RFC 8414 says, without what OpenShift lacks', async () => {
  const as = await discover();
  assert.deepEqual(as.code_challenge_methods_supported, ['plain', 'S256']);
  for (const missing of ['jwks_uri', 'userinfo_endpoint', 'introspection_endpoint', 'revocation_endpoint', 'end_session_endpoint']) {
    assert.equal(as[missing], undefined, missing);
  }
});

test('code, PKCE, token', async () => {
  const answer = await token();
  assert.equal(answer.token_type, 'bearer');
  assert.equal(answer.expires_in, 86_400);
  assert.equal(answer.scope, SCOPE);
  assert.match(answer.access_token, /^sha256~[A-Za-z0-9_-]{43}$/);
  assert.equal(answer.refresh_token, undefined);
  assert.equal(answer.id_token, undefined);
});

test('HTTP Basic, and a token with a private audience as the secret', async () => {
  const as = await discover();
  for (const authentication of [oauth.ClientSecretBasic(world.secret), secret(world.private)]) {
    const asked = await wish(as);
    const answer = await redeem(as, await logIn(asked.url), asked, authentication);
    assert.ok((await oauth.processAuthorizationCodeResponse(as, client, answer)).access_token);
  }
});

test('errors are JSON with 400', async () => {
  const as = await discover();
  const asked = await wish(as);
  const callback = await logIn(asked.url);
  for (const [verifier, authentication, word] of [
    [asked.verifier, secret('wrong'), 'unauthorized_client'],
    [asked.verifier, secret(world.foreign), 'unauthorized_client'],
    [oauth.generateRandomCodeVerifier(), secret(), 'invalid_grant'],
  ]) {
    const answer = await redeem(as, callback, { ...asked, verifier }, authentication);
    assert.equal(answer.status, 400);
    await assert.rejects(oauth.processAuthorizationCodeResponse(as, client, answer), { error: word });
  }
  assert.equal((await redeem(as, callback, asked)).status, 200, 'the code was not used up');
  const again = await redeem(as, callback, asked);
  await assert.rejects(oauth.processAuthorizationCodeResponse(as, client, again), { error: 'invalid_grant' });
});

test('errors that reach the client carry its state', async () => {
  const as = await discover();
  for (const [change, word] of [
    [{ scope: 'user:full' }, 'access_denied'],
    [{ scope: 'everything' }, 'invalid_scope'],
    [{ code_challenge_method: 'S512' }, 'invalid_request'],
    [{ code_challenge: 'short' }, 'invalid_request'],
    [{ response_type: 'id_token' }, 'unsupported_response_type'],
  ]) {
    const asked = await wish(as, change);
    const callback = await logIn(asked.url);
    assert.throws(() => oauth.validateAuthResponse(as, client, callback, asked.state), { error: word });
  }
});

test('errors that must not leave the server', async () => {
  const as = await discover();
  for (const change of [
    { client_id: 'system:serviceaccount:perses:nobody' }, { redirect_uri: 'https://evil.example/-/callback' },
    { redirect_uri: 'https://app.example/' }, { redirect_uri: 'http://app.example/-/callback' }, { redirect_uri: `${CALLBACK}#x` },
  ]) {
    const answer = await get((await wish(as, change)).url);
    assert.equal(answer.status, 400, JSON.stringify(change));
    assert.ok((await answer.json()).error);
    assert.equal(answer.headers.get('location'), null);
  }
});

test('no other grant', async () => {
  const as = await discover();
  const answer = await oauth.refreshTokenGrantRequest(as, client, secret(), 'x', options);
  await assert.rejects(oauth.processRefreshTokenResponse(as, client, answer), { error: 'access_denied' });
  const own = await oauth.clientCredentialsGrantRequest(as, client, secret(), {}, options);
  await assert.rejects(oauth.processClientCredentialsResponse(as, client, own), { error: 'access_denied' });
});

async function tell(what, words = {}) {
  assert.equal((await fetch(`${world.stand_in}/-/stand-in/${what}?${new URLSearchParams(words)}`, { method: 'POST' })).status, 200);
}

test('approval, given and refused', async () => {
  await tell('grant', { to: 'prompt' });
  try {
    const as = await discover();
    const asked = await wish(as);
    const denied = await logIn(asked.url, 'deny');
    assert.throws(() => oauth.validateAuthResponse(as, client, denied, asked.state), { error: 'access_denied' });
    assert.ok((await token()).access_token);
  } finally {
    await tell('grant', { to: 'auto' });
  }
});

const api = (path, bearer, more = {}) => get(`${world.cluster}${path}`, { ...more, headers: { authorization: `Bearer ${bearer}`, 'content-type': 'application/json', ...more.headers } });

async function review(text, audiences) {
  const body = JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token: text, audiences } });
  return (await (await api('/apis/authentication.k8s.io/v1/tokenreviews', world.secret, { method: 'POST', body })).json()).status;
}

const named = async (text) => {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text.slice('sha256~'.length)));
  return `sha256~${Buffer.from(digest).toString('base64url')}`;
};

test('a token at the API: review with scopes, who am I, no deletion with small scopes', async () => {
  const { access_token: text } = await token();
  const status = await review(text);
  assert.equal(status.authenticated, true);
  assert.equal(status.user.username, 'ada');
  assert.deepEqual(status.user.extra['scopes.authorization.openshift.io'], SCOPE.split(' '));
  assert.ok(status.user.groups.includes('system:authenticated:oauth') && status.user.groups.includes('devs'));
  assert.ok(!(await review(text, ['perses'])).authenticated, 'no audience but the API server\'s own');
  assert.equal((await (await api('/apis/user.openshift.io/v1/users/~', text)).json()).metadata.name, 'ada');
  for (const kind of ['oauthaccesstokens', 'useroauthaccesstokens']) {
    const answer = await api(`/apis/oauth.openshift.io/v1/${kind}/${await named(text)}`, text, { method: 'DELETE' });
    assert.equal(answer.status, 403, kind);
  }
  assert.equal((await review(text)).authenticated, true);
});

test('a full token deletes itself, by its name and no other', async () => {
  const { access_token: text } = await token();
  const list = await (await api('/apis/oauth.openshift.io/v1/useroauthaccesstokens', world.full)).json();
  assert.ok(list.items.some((item) => item.metadata.name.startsWith('sha256~')));
  assert.equal((await api(`/apis/oauth.openshift.io/v1/useroauthaccesstokens/${text}`, world.full, { method: 'DELETE' })).status, 404);
  assert.equal((await api(`/apis/oauth.openshift.io/v1/useroauthaccesstokens/${await named(text)}`, world.full, { method: 'DELETE' })).status, 200);
  assert.ok(!(await review(text)).authenticated);
});

test('inactivity and age', async () => {
  await tell('inactivity', { seconds: 300 });
  const { access_token: lively } = await token();
  for (let round = 0; round < 3; round += 1) {
    await tell('advance', { seconds: 290 });
    assert.equal((await review(lively)).authenticated, true);
  }
  await tell('advance', { seconds: 301 });
  assert.ok(!(await review(lively)).authenticated);
  await tell('inactivity');
  const { access_token: old } = await token();
  await tell('advance', { seconds: 86_401 });
  assert.ok(!(await review(old)).authenticated);
});

// The rights of a token with the small scopes of a login, asked for in every way that there is.
test('reviews in OpenShift\'s older words: no scopes said are the token\'s own, none at all are full rights', async () => {
  const { access_token: small } = await token();
  const older = '/apis/authorization.openshift.io/v1/subjectaccessreviews';
  const ask = async (bearer, change, path = older) => {
    const words = { verb: 'get', resourceAPIGroup: 'perses.dev', resource: 'persesdashboards', namespace: 'team-a', ...change };
    const answer = await api(path, bearer, { method: 'POST', body: JSON.stringify(words) });
    return [answer.status, (await answer.json()).allowed];
  };
  assert.deepEqual(await ask(small, { scopes: [] }), [201, true]);
  assert.deepEqual(await ask(small, { scopes: null }), [201, false]);
  assert.deepEqual(await ask(small, {}), [201, false]);
  assert.deepEqual(await ask(small, { scopes: [], namespace: 'team-b' }), [201, false]);
  assert.deepEqual(await ask(small, { scopes: ['role:view:team-a'] }), [201, true]);
  assert.deepEqual(await ask(small, { scopes: ['role:view:team-b'] }), [201, false]);
  assert.deepEqual(await ask(world.full, {}), [201, true]);
  // About others only for whom that is given; the service account may ask in the newer words.
  assert.equal((await ask(small, { user: 'grace', scopes: [] }))[0], 403);
  assert.equal((await ask(world.secret, { user: 'ada' }))[0], 403);
  assert.deepEqual(await ask(world.chief, { user: 'ada' }, '/apis/authorization.openshift.io/v1/namespaces/team-a/localsubjectaccessreviews'), [201, true]);
  assert.equal((await ask(world.chief, { user: 'ada' }, '/apis/authorization.openshift.io/v1/namespaces/team-b/localsubjectaccessreviews'))[0], 403);
  assert.equal((await ask(small, { verb: '' }))[0], 422);
  assert.equal((await ask('sha256~nobody', {}))[0], 401);
});

test('reviews of one\'s own reach as far as the scopes', async () => {
  const { access_token: small } = await token();
  const post = async (bearer, path, body) => {
    const answer = await api(`/apis/authorization.k8s.io/v1/${path}`, bearer, { method: 'POST', body: JSON.stringify(body) });
    return [answer.status, await answer.json()];
  };
  const resourceAttributes = { verb: 'get', group: 'perses.dev', resource: 'persesdashboards', namespace: 'team-a' };
  const own = async (bearer) => (await post(bearer, 'selfsubjectaccessreviews', { spec: { resourceAttributes } }));
  const [code, answer] = await own(small);
  assert.deepEqual([code, answer.status.allowed], [201, false], 'may ask, and has no right with these scopes');
  assert.equal((await own(world.full))[1].status.allowed, true);
  const rules = { spec: { namespace: 'team-a' } };
  assert.equal((await post(small, 'selfsubjectrulesreviews', rules))[0], 403);
  const [, all] = await post(world.full, 'selfsubjectrulesreviews', rules);
  assert.ok(all.status.resourceRules.some((rule) => rule.apiGroups.includes('perses.dev') && rule.verbs.includes('get')));
  assert.equal(all.status.incomplete, false);
  const local = { spec: { user: 'ada', resourceAttributes } };
  assert.equal((await post(world.chief, 'namespaces/team-a/localsubjectaccessreviews', local))[1].status.allowed, true);
  assert.equal((await post(world.full, 'namespaces/team-a/localsubjectaccessreviews', local))[0], 403);
  assert.equal((await post(world.chief, 'namespaces/team-b/localsubjectaccessreviews', local))[0], 403);
});

const decoded = (text) => JSON.parse(Buffer.from(text, 'base64url').toString());

// By the cryptography of Node: whether a token is signed by one of the keys.
async function isSigned(text, keys) {
  const [head, claims, signature] = text.split('.');
  const jwk = keys.find((key) => key.kid === decoded(head).kid);
  if (!jwk) return false;
  const curve = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const key = await crypto.subtle.importKey('jwk', jwk, curve, false, ['verify']);
  return crypto.subtle.verify(curve, key, Buffer.from(signature, 'base64url'), new TextEncoder().encode(`${head}.${claims}`));
}

test('tokens of service accounts: asked for, signed, published, and good when the key has changed', async () => {
  const keys = async () => (await (await api('/openid/v1/jwks', world.secret)).json()).keys;
  const ask = (bearer, spec, account = 'perses-sidecar') => api(`/api/v1/namespaces/perses/serviceaccounts/${account}/token`, bearer, { method: 'POST', body: JSON.stringify({ spec }) });
  assert.equal((await ask(world.full, {})).status, 403);
  assert.equal((await ask(world.root, {}, 'nobody')).status, 404);
  assert.equal((await ask(world.root, { expirationSeconds: 60 })).status, 422);
  const made = await ask(world.root, { audiences: ['login'], expirationSeconds: 600 });
  assert.equal(made.status, 201);
  const { token: before, expirationTimestamp } = (await made.json()).status;
  const claims = decoded(before.split('.')[1]);
  assert.deepEqual([claims.aud, claims.sub], [['login'], world.client]);
  assert.equal(Date.parse(expirationTimestamp), claims.exp * 1000);
  assert.equal(await isSigned(before, await keys()), true);
  assert.equal(await isSigned(`${before.slice(0, -4)}AAAA`, await keys()), false);
  assert.ok((await keys()).some((key) => key.kty === 'XYZ'), 'a key that nobody knows stands among them');
  assert.equal((await (await api('/.well-known/openid-configuration', world.secret)).json()).issuer, claims.iss);
  assert.equal((await api('/openid/v1/jwks', world.full)).status, 403);
  await tell('keys');
  const after = (await (await ask(world.root, { audiences: ['login'] })).json()).status.token;
  assert.notEqual(decoded(after.split('.')[0]).kid, decoded(before.split('.')[0]).kid);
  for (const text of [before, after]) {
    assert.equal(await isSigned(text, await keys()), true);
    assert.equal((await review(text, ['login'])).authenticated, true);
    assert.ok(!(await review(text)).authenticated);
  }
  // And as the secret of the client, as long as it lasts.
  const as = await discover();
  const asked = await wish(as);
  assert.equal((await redeem(as, await logIn(asked.url), asked, secret(after))).status, 200);
  await tell('advance', { seconds: 601 });
  assert.ok(!(await review(before, ['login'])).authenticated);
  const late = await wish(as);
  assert.equal((await redeem(as, await logIn(late.url), late, secret(before))).status, 400);
});

test('logging out of the server is a POST', async () => {
  assert.equal((await get(`${world.oauth}/logout`)).status, 405);
  assert.equal((await get(`${world.oauth}/logout`, { method: 'POST' })).status, 200);
});
