// Where a login leads back to, whatever it was asked (a fragment is the browser's own and is not kept): by the rules of a real browser it is a place of ours.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client } from './client.mjs';
import { browser, world } from './world.mjs';

const SPACES = ['\t', '\n', '\r', '\v', '\f', ' ', '\0', '%09', '%0a', '%0d', '%00', '%20'];
const HOSTILE = [
  '', '//evil.example', '/\\evil.example', '\\\\evil.example', '///evil.example', '/\\/evil.example', 'https://evil.example/',
  'http:evil.example', 'https:/evil.example', 'javascript:alert(1)', 'data:text/html,x', 'evil.example/x', '@evil.example', '.evil.example',
  '/./\\evil.example', '/./../../\\evil.example', '/.//evil.example', '/..//evil.example', '/%2f/evil.example', '/%2f%2fevil.example',
  '/%5cevil.example', '/%255cevil.example', '/%252fevil.example', '%2f%2fevil.example', '%5c%5cevil.example', '/%2e%2e//evil.example',
  '/x/..//evil.example', '/x/../\\evil.example', '/。/evil.example', '／／evil.example', '/／evil.example', '/?//evil.example', '/#//evil.example',
  '/-/logout', '/-/login?to=//evil.example', `/${'a'.repeat(3000)}`,
  ...SPACES.flatMap((space) => [`/${space}/evil.example`, `/${space}\\evil.example`, `${space}//evil.example`, `/${space}/${space}\\evil.example`]),
];
const GOOD = ['/', '/projects/team-a', '/projects/team-a/dashboards/overview?start=1h&refresh=1m', '/projects/a?x=%2F%2Fevil.example'];

test('wherever a login leads back to, it is a place of ours', async () => {
  const { context, close } = await browser();
  try {
    const page = context.pages()[0];
    // A page of the gateway, so that the browser resolves from there.
    await page.goto(`${world.https}/-/logout`);
    const places = new Map();
    for (const to of [...HOSTILE, ...GOOD]) {
      const answer = await new Client().logIn('ada', to);
      // Refused at once is as good as led home.
      if (answer.status >= 400 && HOSTILE.includes(to)) continue;
      assert.equal(answer.status, 302, `${JSON.stringify(to)}: ${answer.status}`);
      places.set(to, answer.headers.location);
    }
    const resolved = await page.evaluate(([places, base]) => places.map(([to, place]) => {
      const link = document.createElement('a');
      link.href = place;
      return [to, new URL(place, base).origin, link.origin];
    }), [[...places], `${world.https}/-/callback`]);
    for (const [to, origin, linked] of resolved) {
      assert.equal(origin, world.https, `${JSON.stringify(to)} led to ${places.get(to)}`);
      assert.equal(linked, world.https, `${JSON.stringify(to)} led to ${places.get(to)}`);
    }
    for (const to of GOOD) assert.equal(new URL(places.get(to), world.https).href, new URL(to, world.https).href);
    assert.ok(resolved.length > GOOD.length, 'some of the hostile were led home');
    // And as a navigation, to each different place.
    for (const place of new Set(places.values())) {
      await page.goto(new URL(place, world.https).href, { waitUntil: 'domcontentloaded' });
      const at = new URL(page.url()).origin;
      assert.ok([world.https, world.oauth].includes(at), `${place} is at ${at}`);
    }
  } finally {
    await close();
  }
});
