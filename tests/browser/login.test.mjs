// Logging in and out in a real browser.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import './targets.mjs';
import './many.mjs';
import { ask, askApart, browser, fillIn, picture, tell, visit, world } from './world.mjs';

const DEEP = '/projects/team-a/dashboards/overview?start=1h&refresh=1m';
let opened = [];

async function fresh(options) {
  const one = await browser(options);
  opened.push(one);
  return { context: one.context, page: one.context.pages()[0] ?? (await one.context.newPage()) };
}

const cookies = async (context) => (await context.cookies(world.https)).filter((cookie) => cookie.name.startsWith('__Host-'));
const session = async (context) => (await cookies(context)).filter((cookie) => cookie.name.includes('session'));
const who = async (page) => (await askApart(page, '/-/whoami')).body.user;

after(async () => { await Promise.all(opened.map((one) => one.close())); });

test('a deep link leads through the login and back to itself', async () => {
  const { context, page } = await fresh();
  await page.goto(`${world.https}${DEEP}`);
  assert.ok(page.url().startsWith(`${world.oauth}/login`), page.url());
  await picture(page, 'openshift-login');
  await fillIn(page, 'ada');
  await page.waitForURL((url) => url.origin === world.https);
  assert.equal(page.url(), `${world.https}${DEEP}`);
  assert.equal(await who(page), 'ada');
  const [cookie, ...more] = await session(context);
  assert.equal(more.length, 0);
  assert.deepEqual(
    [cookie.secure, cookie.httpOnly, cookie.sameSite, cookie.path, cookie.domain],
    [true, true, 'Lax', '/', 'localhost'],
  );
  assert.equal((await cookies(context)).length, 1, 'the cookie of the login itself is gone');
  assert.equal(await page.evaluate(() => document.cookie), '', 'no script sees one');
});

test('wrong password first, right one then', async () => {
  const { page } = await fresh();
  await page.goto(`${world.https}${DEEP}`);
  await page.locator('input[name=username]').fill('ada');
  await page.locator('input[name=password]').fill('wrong');
  await page.locator('form button').click();
  await page.getByText('Invalid login or password').waitFor();
  await fillIn(page, 'ada');
  await page.waitForURL((url) => url.origin === world.https);
  assert.equal(page.url(), `${world.https}${DEEP}`);
});

test('two tabs log in at once, each to its own place', async () => {
  const { context, page: one } = await fresh();
  const two = await context.newPage();
  await one.goto(`${world.https}/projects/team-a`);
  await two.goto(`${world.https}/projects/team-b`);
  assert.equal((await cookies(context)).length, 2, 'a cookie for each login');
  await fillIn(two, 'ada');
  await two.waitForURL((url) => url.origin === world.https);
  assert.equal(new URL(two.url()).pathname, '/projects/team-b');
  await fillIn(one, 'ada');
  await one.waitForURL((url) => url.origin === world.https);
  assert.equal(new URL(one.url()).pathname, '/projects/team-a');
  assert.equal(await who(one), 'ada');
  assert.equal(await who(two), 'ada');
});

test('the back button after a login does no harm', async () => {
  const { page } = await fresh();
  await visit(page, 'ada', DEEP);
  const back = page.url();
  await page.goBack().catch(() => null);
  await picture(page, 'back-button');
  // The login page is stale; using it again ends at a page of ours that helps, or at the login anew.
  if (page.url().startsWith(world.oauth)) {
    await fillIn(page, 'ada');
    await page.waitForLoadState();
    await picture(page, 'back-button-again');
  }
  await page.goto(back);
  assert.equal(await who(page), 'ada');
});

test('a session that has ended: a page goes to the login, a script is told so', async () => {
  const { page } = await fresh();
  await visit(page, 'grace', DEEP);
  assert.equal((await ask(page, '/api/v1/projects')).status, 200);
  await tell('revoke', { user: 'grace' });
  // Within the bound of staleness that this world was given.
  let answer;
  for (let round = 0; round < 40; round += 1) {
    answer = await ask(page, '/api/v1/projects');
    if (answer.status !== 200) break;
    await new Promise((resolve) => { setTimeout(resolve, 250); });
  }
  assert.equal(answer.status, 401);
  assert.equal(answer.redirected, false, 'no way to another origin for a script');
  assert.match(answer.headers['www-authenticate'] ?? '', /^Bearer/);
  assert.ok(typeof answer.body.message === 'string', JSON.stringify(answer.body));
  const query = await ask(page, '/proxy/globaldatasources/prometheus/api/v1/query?query=up');
  assert.equal(query.status, 401);
  assert.equal(query.body.status, 'error');
  await page.reload();
  assert.ok(page.url().startsWith(`${world.oauth}/login`), page.url());
  await fillIn(page, 'grace');
  await page.waitForURL((url) => url.origin === world.https);
  assert.equal(page.url(), `${world.https}${DEEP}`);
});

test('logging out, and a second person at the same browser', async () => {
  const { context, page } = await fresh();
  await visit(page, 'ada', DEEP);
  const [stolen] = await session(context);
  await page.goto(`${world.https}/-/logout`);
  await picture(page, 'logout');
  assert.equal(await who(page), 'ada', 'looking at the page logs nobody out');
  await Promise.all([
    page.waitForResponse((answer) => answer.request().method() === 'POST'),
    page.locator('form button').first().click(),
  ]);
  await page.waitForLoadState();
  await picture(page, 'logged-out');
  assert.equal((await session(context)).length, 0);
  assert.equal((await askApart(page, '/api/v1/projects')).status, 401);
  // A copy of the cookie is worth nothing.
  await context.addCookies([{ name: stolen.name, value: stolen.value, url: world.https, secure: true, httpOnly: true, sameSite: 'Lax' }]);
  assert.equal((await askApart(page, '/api/v1/projects')).status, 401);
  await context.clearCookies();
  await visit(page, 'grace', DEEP);
  assert.equal(await who(page), 'grace');
  const projects = (await askApart(page, '/api/v1/projects')).body.map((project) => project.metadata.name);
  assert.deepEqual(projects, ['team-b']);
});

test('two people see different data', async () => {
  const seen = {};
  for (const person of ['ada', 'grace', 'root', 'eve']) {
    const { page } = await fresh();
    await visit(page, person, '/');
    const query = encodeURIComponent('count by (namespace) (vllm:num_requests_running)');
    const answer = await askApart(page, `/proxy/globaldatasources/prometheus/api/v1/query?query=${query}`);
    seen[person] = answer.status === 200 ? answer.body.data.result.map((one) => one.metric.namespace).sort() : answer.status;
    seen[`${person} lists`] = (await askApart(page, '/api/v1/projects')).body.map((project) => project.metadata.name).sort();
  }
  assert.deepEqual(seen.ada, ['team-a', 'team-b']);
  assert.deepEqual(seen.grace, ['team-b']);
  assert.ok(seen.root.length >= 3 && seen.root.includes('team-c'), JSON.stringify(seen.root));
  assert.deepEqual(seen['ada lists'], ['team-a', 'team-b']);
  assert.deepEqual(seen['eve lists'], []);
  assert.ok(typeof seen.eve === 'number' || seen.eve.length === 0, JSON.stringify(seen.eve));
});

test('who says no at the approval page gets a page that helps', async () => {
  const { page } = await fresh();
  await tell('grant', { to: 'prompt' });
  try {
    await page.goto(`${world.https}${DEEP}`);
    await fillIn(page, 'ada');
    await page.locator('button[name=deny]').click();
    await page.waitForURL((url) => url.origin === world.https);
    await picture(page, 'denied');
    assert.ok(page.url().startsWith(`${world.https}/-/callback`), 'no loop');
    assert.equal(await page.getByRole('link').count() > 0, true, 'a way to try again');
    await page.getByRole('link').first().click();
    // The server has not forgotten who is there.
    await page.locator('button[name=approve]').click();
    await page.waitForURL((url) => url.origin === world.https);
    assert.equal(page.url(), `${world.https}${DEEP}`);
  } finally {
    await tell('grant', { to: 'auto' });
  }
});

test('an OAuth server that talks nonsense', async () => {
  for (const [status, kind, body] of [
    [500, 'text/plain', 'Error: something with sha256~secret'],
    [200, 'text/html', '<h1>hello</h1>'],
    [200, 'application/json', '{"access_token": "sha256~'],
    [302, 'text/html', ''],
  ]) {
    const { page } = await fresh();
    await tell('fault', { at: 'token', status, kind, body });
    try {
      await page.goto(`${world.https}${DEEP}`);
      await fillIn(page, 'ada');
      await page.waitForURL((url) => url.origin === world.https);
      const text = await page.locator('body').innerText();
      assert.ok(!text.includes('sha256~'), text);
      await picture(page, `token-endpoint-${status}-${kind.replace('/', '-')}`);
      assert.equal((await askApart(page, '/api/v1/projects')).status, 401);
    } finally {
      await tell('fault', { at: 'token' });
    }
    await visit(page, 'ada', DEEP);
    assert.equal(await who(page), 'ada');
  }
});

async function until(what, patience = 75) {
  for (let round = 0; round < patience * 4; round += 1) {
    if (await what()) return;
    await new Promise((resolve) => { setTimeout(resolve, 250); });
  }
  assert.fail(`not within ${patience} s: ${what}`);
}

test('a token that nobody used for too long ends its session, and its owner logs in again', async () => {
  await tell('inactivity', { seconds: 300 });
  try {
    const { context, page } = await fresh();
    await visit(page, 'ada', DEEP);
    await tell('advance', { seconds: 290 });
    // Each look keeps it awake, as reviews are for people who come.
    assert.equal((await ask(page, '/api/v1/projects')).status, 200);
    await until(async () => (await ask(page, '/api/v1/user/whoami')).status === 200, 5);
    await tell('advance', { seconds: 301 });
    await until(async () => (await ask(page, '/api/v1/projects')).status === 401, 15);
    await until(async () => (await session(context)).length === 0, 5);
    await page.reload();
    assert.ok(page.url().startsWith(`${world.oauth}/login`), page.url());
    await fillIn(page, 'ada');
    await page.waitForURL((url) => url.origin === world.https);
    assert.equal(page.url(), `${world.https}${DEEP}`);
    assert.equal(await who(page), 'ada');
  } finally {
    await tell('inactivity');
  }
});

test('a form that another page made is refused by a page that helps', async () => {
  const { context, page } = await fresh();
  await visit(page, 'ada', DEEP);
  await page.goto('data:text/html,<p>another page');
  await page.evaluate((to) => {
    document.body.innerHTML = `<form method=post action="${to}"><button>Win</button></form>`;
    document.querySelector('button').click();
  }, `${world.https}/-/logout`);
  await page.getByText('You may not do this').waitFor();
  await picture(page, 'form-of-another-page');
  await page.getByRole('link', { name: 'To the dashboards' }).click();
  await page.waitForURL(`${world.https}/`);
  assert.equal(await who(page), 'ada', 'nothing has happened');
  assert.equal((await session(context)).length, 1);
});

test('the server at which people log in gets another authority, and then another address', async () => {
  await tell('authority');
  // Each browser learns the keys anew that it shall trust.
  let last = '';
  await until(async () => {
    const { page } = await fresh();
    await visit(page, 'grace', DEEP);
    last = page.url();
    if (last === `${world.https}${DEEP}`) return (await who(page)) === 'grace';
    await picture(page, 'another-authority');
    return false;
  }, 5);
  assert.equal(last, `${world.https}${DEEP}`);
  const before = world.oauth;
  world.oauth = await tell('move');
  assert.notEqual(world.oauth, before);
  await until(async () => {
    const answer = await fetch(`${world.https}/-/login`, { redirect: 'manual' });
    return (answer.headers.get('location') ?? '').startsWith(`${world.oauth}/`);
  });
  const { page } = await fresh();
  await visit(page, 'ada', DEEP);
  assert.equal(await who(page), 'ada');
});

test('the pages, light and dark, without scripts', async () => {
  for (const colorScheme of ['light', 'dark']) {
    const { page } = await fresh({ colorScheme, javaScriptEnabled: false });
    await visit(page, 'eve', '/');
    for (const [name, path] of [
      ['first-page-of-nobody', '/'], ['whoami', '/-/whoami'], ['logout', '/-/logout'], ['no-such-page', '/-/nothing'],
      ['callback-alone', '/-/callback?code=x&state=y'],
    ]) {
      const answer = await page.goto(`${world.https}${path}`);
      await picture(page, `${name}-${colorScheme}`);
      if (!path.startsWith('/-/')) continue;
      const policy = (await answer.allHeaders())['content-security-policy'] ?? '';
      assert.match(policy, /default-src 'none'/, `${path} ${policy}`);
    }
  }
});
