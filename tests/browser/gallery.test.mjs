// Workloads of the demo and their dashboards as people meet them: in the lists, drawn, and in the gallery by keyboard alone.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { ask, browser, picture, tell, visit, world } from './world.mjs';

const opened = [];
after(async () => { await Promise.all(opened.map((one) => one.close())); });

async function open(person, path, options) {
  const one = await browser(options);
  opened.push(one);
  const page = one.context.pages()[0];
  await visit(page, person, path);
  return page;
}

// Presses Tab until the thing of these words has the focus; gives how often.
async function tabTo(page, words) {
  for (let count = 1; count < 200; count += 1) {
    await page.keyboard.press('Tab');
    const focus = page.locator(':focus');
    if (await focus.count() && (await focus.first().innerText()).trim() === words) return count;
  }
  throw new Error(`no way to ${words} by keyboard`);
}

test('the dashboard of a model draws, for the right pods, and nobody made it', async () => {
  const page = await open('ada', '/', { viewport: { width: 1600, height: 1000 } });
  const workloads = await ask(page, '/-/api/v1/workloads?namespace=team-a&kind=InferenceService');
  assert.equal(workloads.status, 200, JSON.stringify(workloads.body));
  const granite = workloads.body.find((workload) => workload.name === 'granite');
  const problems = [];
  const answers = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('response', async (answer) => {
    if (answer.url().endsWith('/query_range')) answers.push([answer.status(), await answer.json().catch(() => null)]);
  });
  await page.goto(world.https + granite.dashboards[0].url);
  await page.locator('canvas').nth(3).waitFor();
  for (let round = 0; round < 60 && answers.length < 8; round += 1) await page.waitForTimeout(250);
  await page.waitForTimeout(1500);
  await picture(page, 'workload-vllm');
  assert.deepEqual(problems, []);
  assert.ok(answers.length >= 8, `${answers.length} queries`);
  for (const [status, body] of answers) {
    assert.equal(status, 200, JSON.stringify(body));
    for (const { metric } of body.data.result) assert.ok([undefined, 'team-a'].includes(metric.namespace), JSON.stringify(metric));
  }
});

test('a new workload is listed within five seconds, for those who may see it', async () => {
  const [ada, grace] = [await open('ada', '/'), await open('grace', '/')];
  const list = '/api/v1/dashboards?metadata_only=true';
  const has = async (page) => (await ask(page, list)).body.some((one) => one.metadata.name.includes('notebook-fresh'));
  assert.equal(await has(ada), false);
  const began = Date.now();
  await tell('put', { api: 'kubeflow.org/v1', kind: 'Notebook', namespace: 'team-a', name: 'fresh' });
  while (!(await has(ada))) {
    assert.ok(Date.now() - began < 5000, 'not within 5 s');
    await ada.waitForTimeout(50);
  }
  console.log(`listed after ${Date.now() - began} ms`);
  assert.equal(await has(grace), false);
});

test('the gallery works by keyboard and without scripts, in two steps from a workload to a dashboard of one\'s own', async () => {
  const page = await open('ada', '/-/gallery', { javaScriptEnabled: false, viewport: { width: 1280, height: 900 } });
  await page.getByText('What runs in your projects').waitFor();
  const text = await page.locator('main').innerText();
  for (const word of ['granite', 'finetune', 'research', '● ready', 'team-b']) assert.ok(text.includes(word), word);
  assert.ok(!text.includes('vision') && !text.includes('team-c'), 'what is not of ada');
  await picture(page, 'gallery');
  await page.emulateMedia({ colorScheme: 'dark' });
  await picture(page, 'gallery-dark');
  await page.setViewportSize({ width: 380, height: 800 });
  await picture(page, 'gallery-narrow');
  await page.setViewportSize({ width: 1280, height: 900 });
  const began = Date.now();
  const first = await tabTo(page, 'Make your own');
  await page.keyboard.press('Enter');
  await page.waitForURL(/template=.*#new$/);
  assert.notEqual(await page.locator('#new-workload').inputValue(), '');
  await page.locator('#new-name').focus();
  await page.keyboard.type('of-my-own');
  const second = await tabTo(page, 'Create');
  await page.keyboard.press('Enter');
  await page.waitForURL(/\/projects\/team-a\/dashboards\/of-my-own$/);
  console.log(`${first} and ${second} times Tab, ${Date.now() - began} ms`);
  const refused = await open('grace', '/-/gallery', { javaScriptEnabled: false });
  assert.ok(!(await refused.locator('main').innerText()).includes('finetune'));
  // Grace may not create in team-a, whatever her form says: she reads that there is nothing.
  await refused.locator('#new-project').evaluate((select) => { select.options[0].value = 'team-a'; select.value = 'team-a'; });
  await refused.locator('#new-workload').fill('granite');
  await refused.getByRole('button', { name: 'Create' }).click();
  await refused.getByText('Nothing here').waitFor();
  await picture(refused, 'gallery-refused');
});
