// An external OpenID provider: `oidc-provider`, on TLS. `node provider.mjs FILE` reads what it needs from FILE and writes a
// line once it answers.
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { Provider } from 'oidc-provider';

const { url, certificate, key, client, secret, here, people, lifetime = 3600 } = JSON.parse(readFileSync(process.argv[2], 'utf8'));

const provider = new Provider(url, {
  clients: [{
    client_id: client,
    client_secret: secret,
    redirect_uris: [`${here}/-/callback`],
    post_logout_redirect_uris: [`${here}/-/logout`],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
  }],
  // In the ID token, because that is what an API server reads.
  conformIdTokenClaims: false,
  claims: { openid: ['sub', 'preferred_username', 'groups'], profile: ['name'] },
  scopes: ['openid', 'offline_access', 'profile'],
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: `id-of-${id}`, preferred_username: id, groups: people[id] ?? [] }),
  }),
  pkce: { required: () => true },
  cookies: { keys: [secret] },
  ttl: { IdToken: lifetime, AccessToken: lifetime, Session: 3600, Interaction: 600, Grant: 3600, RefreshToken: 3600, AuthorizationCode: 60 },
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  features: { rpInitiatedLogout: { enabled: true }, revocation: { enabled: true }, devInteractions: { enabled: true } },
});
provider.on('server_error', (_, error) => console.error(error));

createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, provider.callback()).listen(new URL(url).port, '127.0.0.1', () => {
  console.log(`ready at ${url}`);
});
