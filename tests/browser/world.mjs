// A world that runs, and people with browsers in it. `WORLD` names the file that `cargo try --env FILE` or a suite wrote.
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createHash, X509Certificate } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { chromium } from 'playwright-core';

export const world = JSON.parse(readFileSync(process.env.WORLD, 'utf8'));

// Where pictures are kept.
const pictures = process.env.PICTURES ?? join(world.folder, 'pictures');
mkdirSync(pictures, { recursive: true });

// Tells the stand-in something, such as `tell('revoke', { user: 'ada' })`; see tests/stack/src/openshift/remote.rs.
export async function tell(what, words = {}) {
  const answer = await fetch(`${world.stand_in}/-/stand-in/${what}?${new URLSearchParams(words)}`, { method: 'POST' });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${what}: ${text}`);
  return text;
}

// Something that must not be written down anywhere.
export function note(secret) {
  appendFileSync(join(world.folder, 'secrets.txt'), `${secret}\n`);
}

// The key of a server of ours, which the browser shall trust and no other.
async function key(url) {
  const { hostname: host, port } = new URL(url);
  const socket = connect({ host, port, servername: 'localhost', rejectUnauthorized: false });
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  const certificate = new X509Certificate(socket.getPeerCertificate().raw);
  socket.destroy();
  return createHash('sha256').update(certificate.publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
}

// A browser with a profile of its own; `close` ends it and takes the profile away.
export async function browser(options = {}) {
  const profile = mkdtempSync(join(tmpdir(), 'perses-sidecar-browser-'));
  const keys = await Promise.all([world.https, world.oauth, world.provider].filter(Boolean).map(key));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    viewport: { width: 1280, height: 800 },
    ...options,
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      `--ignore-certificate-errors-spki-list=${keys.join(',')}`,
    ],
  });
  context.setDefaultTimeout(15_000);
  const close = async () => {
    // Whoever made this world looks for them in all that was written down.
    for (const cookie of await context.cookies()) if (cookie.value) note(cookie.value);
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { context, close };
}

// Fills in the login page of OpenShift that `page` shows.
export async function fillIn(page, person) {
  await page.locator('input[name=username]').fill(person);
  await page.locator('input[name=password]').fill(world.users[person].password);
  await page.locator('form button').first().click();
}

// Somebody goes to a place of the gateway, through the login if it comes; gives the last answer.
export async function visit(page, person, path) {
  await page.goto(`${world.https}${path}`);
  if (page.url().startsWith(world.oauth)) {
    await fillIn(page, person);
    await page.waitForURL((url) => url.origin === world.https);
  }
  return page;
}

// Asks as a script of the page would; the status and what was said.
export function ask(page, path, options = {}) {
  return page.evaluate(
    async ([path, options]) => {
      const answer = await fetch(path, options);
      const text = await answer.text();
      let body = text;
      try { body = JSON.parse(text); } catch { /* text it is */ }
      return { status: answer.status, redirected: answer.redirected, headers: Object.fromEntries(answer.headers), body };
    },
    [path, options],
  );
}

// The same beside the page, with its cookies: our own pages let no script ask. Node must know the authority
// (`NODE_EXTRA_CA_CERTS`).
export async function askApart(page, path, options = {}) {
  const answer = await page.request.fetch(`${world.https}${path}`, {
    maxRedirects: 0,
    ...options,
    headers: { accept: 'application/json', 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty', ...options.headers },
  });
  const text = await answer.text();
  let body = text;
  try { body = JSON.parse(text); } catch { /* text it is */ }
  return { status: answer.status(), headers: answer.headers(), body };
}

// A picture, as an artefact to be looked at.
export async function picture(page, name) {
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
}
