// The stand-in's API as OpenShift's is: tokens and rights, before the cryptography of Node and by hand.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SCOPE, api, discover, logIn, named, redeem, review, secret, tell, token, wish, world } from './oauth.mjs';

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
  assert.equal((await redeem(as, await logIn(asked.url), asked, { by: secret(after) })).status, 200);
  await tell('advance', { seconds: 601 });
  assert.ok(!(await review(before, ['login'])).authenticated);
  const late = await wish(as);
  assert.equal((await redeem(as, await logIn(late.url), late, { by: secret(before) })).status, 400);
});
