// A client of the stand-in's OAuth server made of `oauth4webapi`, which knows the standards and nothing of us.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import * as oauth from 'oauth4webapi';

export const world = JSON.parse(readFileSync(process.env.WORLD, 'utf8'));
export const CALLBACK = 'https://app.example/-/callback';
export const SCOPE = 'user:info user:check-access user:list-projects';

// Whoever believes the authorities that are published now.
export const believer = () => new Agent({ ca: world.ca_files.map((file) => readFileSync(file)), keepAlive: true });
let agent = believer();
export function believeAgain() { agent = believer(); }

// `fetch` with our authorities, without following anybody.
export function get(url, { method = 'GET', headers = {}, body, signal, as = agent } = {}) {
  return new Promise((resolve, reject) => {
    const asked = request(url, { method, headers: Object.fromEntries(new Headers(headers)), agent: as, signal }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part)).on('error', reject).on('end', () => {
        const headers = new Headers();
        for (let at = 0; at < answer.rawHeaders.length; at += 2) headers.append(answer.rawHeaders[at], answer.rawHeaders[at + 1]);
        const empty = [204, 304].includes(answer.statusCode);
        resolve(new Response(empty ? null : Buffer.concat(parts), { status: answer.statusCode, headers }));
      });
    });
    asked.on('error', reject).end(body === undefined ? undefined : String(body));
  });
}

// The document says who it is by itself; the address that serves it is the API server's.
export const document = (more) => get(`${world.cluster}/.well-known/oauth-authorization-server`, more);
export const discover = async () => oauth.processDiscoveryResponse(new URL(world.oauth), await document());

// What a client asks for; `undefined` in `change` leaves a word out.
export async function wish(as, change = {}) {
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

// A person at a browser without scripts: gives the address on the client's side, and puts titles of pages into `pages`.
export async function logIn(url, { press = 'approve', pages = [] } = {}) {
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
    pages.push(page.match(/<title>([^<]*)/)[1]);
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

export const secret = (text = world.secret) => oauth.ClientSecretPost(text);

// Redeems a code by `by` as the client `id`; `code` and `verifier` may be others than were given.
export async function redeem(as, callback, { verifier, state }, { by = secret(), id = world.client, at = CALLBACK, code, signal } = {}) {
  const client = { client_id: id };
  const address = new URL(callback);
  if (code !== undefined) address.searchParams.set('code', code);
  const parameters = oauth.validateAuthResponse(as, client, address, state);
  return oauth.authorizationCodeGrantRequest(as, client, by, parameters, at, verifier, { [oauth.customFetch]: get, signal });
}

export const read = (as, answer, id = world.client) => oauth.processAuthorizationCodeResponse(as, { client_id: id }, answer);

// The whole way; `change` is of the wish, `more` of the redemption.
export async function token(change, more) {
  const as = await discover();
  const asked = await wish(as, change);
  return read(as, await redeem(as, await logIn(asked.url), asked, more), more?.id);
}

export async function tell(what, words = {}) {
  assert.equal((await fetch(`${world.stand_in}/-/stand-in/${what}?${new URLSearchParams(words)}`, { method: 'POST' })).status, 200);
}

export const api = (path, bearer, more = {}) => get(`${world.cluster}${path}`, { ...more, headers: { authorization: `Bearer ${bearer}`, 'content-type': 'application/json', ...more.headers } });

export async function review(text, audiences) {
  const body = JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token: text, audiences } });
  return (await (await api('/apis/authentication.k8s.io/v1/tokenreviews', world.secret, { method: 'POST', body })).json()).status;
}

export const named = async (text) => {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text.slice('sha256~'.length)));
  return `sha256~${Buffer.from(digest).toString('base64url')}`;
};
