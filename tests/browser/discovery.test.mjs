// The cluster cannot say yet where people log in, and says so later.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { askApart, browser, fillIn, picture, tell, world } from './world.mjs';

const DEEP = '/projects/team-a/dashboards/overview?start=1h';
const opened = [];

after(async () => { await Promise.all(opened.map((one) => one.close())); });

const ready = async () => (await fetch(`${world.admin}/readyz`)).status;

test('a page that helps until discovery works, and then the login', async () => {
  const one = await browser();
  opened.push(one);
  const page = one.context.pages()[0] ?? (await one.context.newPage());
  const answer = await page.goto(`${world.https}${DEEP}`);
  assert.equal(answer.status(), 503, 'no redirect to nowhere');
  assert.ok(Number(answer.headers()['retry-after']) > 0, 'it says when');
  assert.equal(await ready(), 503);
  await page.getByText('try again soon').waitFor();
  await picture(page, 'discovery-fails');
  const text = await page.locator('body').innerText();
  assert.ok(!text.includes('Error: something'), `what the API server said is nothing for people: ${text}`);
  // Scripts are told so, and tokens are taken.
  assert.equal((await askApart(page, '/api/v1/projects')).status, 401);
  const token = { authorization: `Bearer ${world.users.ada.token}` };
  assert.equal((await askApart(page, '/api/v1/projects', { headers: token })).status, 200);
  // Still not: the page's own way to try again leads to the same page.
  await page.getByRole('link', { name: 'Try again' }).click();
  await page.getByText('try again soon').waitFor();
  await tell('fault', { at: 'discovery' });
  let rounds = 0;
  while (!page.url().startsWith(world.oauth)) {
    rounds += 1;
    assert.ok(rounds < 40, 'found within ten seconds');
    await new Promise((resolve) => { setTimeout(resolve, 250); });
    await page.getByRole('link', { name: 'Try again' }).click();
    await page.waitForLoadState();
  }
  await fillIn(page, 'ada');
  await page.waitForURL((url) => url.origin === world.https);
  assert.equal(page.url(), `${world.https}${DEEP}`, 'what was asked for first');
  assert.equal((await askApart(page, '/-/whoami')).body.user, 'ada');
  assert.equal(await ready(), 200);
});
