// Five hundred people log in within ten seconds: all succeed, and what it means for others is reported.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client } from './client.mjs';
import { world } from './world.mjs';

const PEOPLE = 500;
const WITHIN = 10_000;

async function asks() {
  const began = performance.now();
  const answer = await fetch(`${world.gateway}/api/v1/projects`, { headers: { authorization: `Bearer ${world.users.ada.token}` } });
  assert.equal(answer.status, 200);
  await answer.arrayBuffer();
  return performance.now() - began;
}

const middle = (times) => times.sort((a, b) => a - b)[Math.floor(times.length / 2)];

test('five hundred logins within ten seconds', async (context) => {
  const idle = [];
  for (let round = 0; round < 100; round += 1) idle.push(await asks());
  let done = false;
  const busy = [];
  const other = (async () => {
    while (!done) {
      busy.push(await asks());
      await new Promise((resolve) => { setTimeout(resolve, 20); });
    }
  })();
  const began = performance.now();
  const logins = Array.from({ length: PEOPLE }, async (_, at) => {
    await new Promise((resolve) => { setTimeout(resolve, (at * WITHIN) / PEOPLE); });
    const person = ['ada', 'grace'][at % 2];
    const client = new Client();
    const answer = await client.logIn(person, '/projects/team-b');
    if (answer.status !== 302 || answer.headers.location !== '/projects/team-b') return `${answer.status} ${answer.text.slice(0, 200)}`;
    const who = await client.ask(`${world.https}/-/whoami`, { headers: { accept: 'application/json', 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty' } });
    return JSON.parse(who.text).user === person ? null : `${who.status} ${who.text}`;
  });
  const failures = (await Promise.all(logins)).filter(Boolean);
  const took = performance.now() - began;
  done = true;
  await other;
  const [calm, loaded] = [middle(idle), middle(busy)];
  context.diagnostic(`${PEOPLE} logins took ${Math.round(took)} ms; others: ${calm.toFixed(2)} ms idle, ${loaded.toFixed(2)} ms meanwhile, ratio ${(loaded / calm).toFixed(1)}`);
  assert.deepEqual(failures.slice(0, 3), []);
});
