// A real API server: it has the stand-in review the tokens of its OAuth server, as OpenShift's does, and believes an external
// OpenID provider. Whichever of the two the cluster uses at the moment is where people are sent.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { askApart, browser, fillIn, picture, tell, world } from './world.mjs';

const opened = [];
after(async () => { await Promise.all(opened.map((one) => one.close())); });

async function fresh() {
  const one = await browser();
  opened.push(one);
  return one.context.pages()[0];
}

async function until(what, patience = 60) {
  for (let round = 0; round < patience * 4; round += 1) {
    if (await what()) return;
    await new Promise((resolve) => { setTimeout(resolve, 250); });
  }
  assert.fail(`not within ${patience} s: ${what}`);
}

const who = async (page) => (await askApart(page, '/-/whoami')).body.user;
const projects = async (page) => (await askApart(page, '/api/v1/projects')).body.map((one) => one.metadata.name).sort();
const status = async (page) => (await askApart(page, '/api/v1/projects')).status;

async function namespaces(page) {
  const query = encodeURIComponent('count by (namespace) (vllm:num_requests_running)');
  const answer = await askApart(page, `/proxy/globaldatasources/prometheus/api/v1/query?query=${query}`);
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  return answer.body.data.result.map((one) => one.metric.namespace).sort();
}

async function atOpenShift(person) {
  const page = await fresh();
  await page.goto(`${world.https}/projects/team-b`);
  assert.ok(page.url().startsWith(`${world.oauth}/login`), page.url());
  await fillIn(page, person);
  await page.waitForURL(`${world.https}/projects/team-b`);
  return page;
}

// The provider's own pages: who it is, and whether it may be told.
async function atProvider(person) {
  const page = await fresh();
  await until(async () => {
    await page.goto(`${world.https}/projects/team-b`);
    return page.url().startsWith(world.provider);
  });
  await picture(page, 'provider-login');
  await page.locator('input[name=login]').fill(person);
  await page.locator('input[name=password]').fill('anything');
  await page.locator('button[type=submit]').click();
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.waitForURL(`${world.https}/projects/team-b`);
  return page;
}

test('OpenShift: who is who, by the real API server', async () => {
  const ada = await atOpenShift('ada');
  assert.equal(await who(ada), 'ada');
  assert.deepEqual(await projects(ada), ['team-a', 'team-b']);
  assert.deepEqual(await namespaces(ada), ['team-a', 'team-b']);
  const grace = await atOpenShift('grace');
  assert.deepEqual(await namespaces(grace), ['team-b']);
  const eve = await fresh();
  await eve.goto(`${world.https}/`);
  await fillIn(eve, 'eve');
  await eve.waitForURL((url) => url.origin === world.https);
  assert.deepEqual(await projects(eve), []);
});

test('OpenShift: a token that is deleted, and one that ends', async () => {
  const deleted = await atOpenShift('ada');
  assert.equal(await status(deleted), 200);
  await tell('revoke', { user: 'ada' });
  await until(async () => (await status(deleted)) === 401);
  const idle = await atOpenShift('grace');
  assert.equal(await status(idle), 200);
  await tell('advance', { seconds: 86_401 });
  await until(async () => (await status(idle)) === 401);
});

test('an external provider, when the cluster turns to one', async () => {
  await tell('discovery', { to: 'missing' });
  const ada = await atProvider('ada');
  assert.equal(await who(ada), 'ada');
  assert.deepEqual(await projects(ada), ['team-a', 'team-b']);
  assert.deepEqual(await namespaces(ada), ['team-a', 'team-b']);
  const grace = await atProvider('grace');
  assert.deepEqual(await namespaces(grace), ['team-b']);
  // Of a group that the provider names, and the API server believes.
  const lin = await atProvider('lin');
  assert.deepEqual(await projects(lin), ['team-c']);
});

test('logging out ends the session at the provider too', async () => {
  const page = await atProvider('ada');
  await page.goto(`${world.https}/-/logout`);
  await page.locator('form button').first().click();
  await page.waitForURL((url) => url.href.startsWith(world.provider));
  await picture(page, 'provider-logout');
  await page.getByRole('button', { name: /yes/i }).click();
  await page.waitForURL((url) => url.origin === world.https);
  await picture(page, 'provider-logged-out');
  assert.equal(await status(page), 401);
  await page.goto(`${world.https}/projects/team-b`);
  await page.locator('input[name=login]').waitFor();
  assert.ok(page.url().startsWith(world.provider), 'the provider asks again who it is');
});

test('and back to OpenShift', async () => {
  await tell('discovery', { to: 'present' });
  const page = await fresh();
  await until(async () => {
    await page.goto(`${world.https}/projects/team-b`);
    return page.url().startsWith(world.oauth);
  });
  await fillIn(page, 'ada');
  await page.waitForURL(`${world.https}/projects/team-b`);
  assert.equal(await who(page), 'ada');
});
