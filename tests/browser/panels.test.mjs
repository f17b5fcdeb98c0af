// A dashboard of eight panels, drawn by the published Perses packages through the gateway, for people with different rights.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ask, browser, picture, visit, world } from './world.mjs';

const query = (text, kind = 'TimeSeriesQuery') => ({
  kind, spec: { plugin: { kind: 'PrometheusTimeSeriesQuery', spec: { query: text, seriesNameFormat: '{{namespace}}' } } },
});
const panel = (name, kind, spec, ...queries) => ({
  kind: 'Panel', spec: { display: { name }, plugin: { kind, spec }, queries: queries.map((text) => query(text)) },
});
// Each panel another question, as the page asks no question twice.
const running = (how) => `${how} by (namespace) (vllm:num_requests_running)`;
const PANELS = {
  line: panel('Running requests', 'TimeSeriesChart', {}, running('sum')),
  lines: panel('Scraped', 'TimeSeriesChart', { legend: { position: 'bottom' } }, running('group')),
  stat: panel('Now', 'StatChart', { calculation: 'last-number' }, running('max')),
  gauge: panel('Gauge', 'GaugeChart', { calculation: 'last-number', max: 100 }, running('min')),
  bar: panel('Bars', 'BarChart', { calculation: 'last-number' }, running('avg')),
  table: panel('Table', 'TimeSeriesTable', {}, running('count')),
  mine: panel('Team b by name', 'TimeSeriesChart', {}, 'sum by (namespace) (vllm:num_requests_running{namespace="team-b"})'),
  words: { kind: 'Panel', spec: { display: { name: 'Words' }, plugin: { kind: 'Markdown', spec: { text: 'eight **panels**' } } } },
};
const DASHBOARD = {
  kind: 'Dashboard',
  metadata: { name: 'eight', project: 'team-b' },
  spec: {
    display: { name: 'Eight panels' },
    // The demo's past is made once a day, so the last hour may have a hole.
    duration: '2d',
    panels: PANELS,
    layouts: [{ kind: 'Grid', spec: { items: Object.keys(PANELS).map((key, at) => ({
      x: (at % 4) * 6, y: Math.floor(at / 4) * 8, width: 6, height: 8, content: { $ref: `#/spec/panels/${key}` },
    })) } }],
  },
};

const opened = [];
after(async () => { await Promise.all(opened.map((one) => one.close())); });

// Somebody looks at the dashboard; gives what the page asked, what came back, and what went wrong on the way.
async function look(person) {
  const one = await browser({ viewport: { width: 1600, height: 900 } });
  opened.push(one);
  const page = one.context.pages()[0];
  const seen = { calls: [], answers: [], problems: [] };
  page.on('pageerror', (error) => seen.problems.push(String(error)));
  page.on('response', async (answer) => {
    const url = new URL(answer.url());
    if (url.origin !== world.https || !/^\/(api|proxy|plugins)\//.test(url.pathname)) return;
    const call = { line: `${answer.request().method()} ${url.pathname}`, status: answer.status(), form: answer.request().postData() };
    seen.calls.push(call);
    if (url.pathname.endsWith('/query_range')) seen.answers.push(await answer.json().catch(() => null));
  });
  await visit(page, person, '/projects/team-b/dashboards/eight');
  await page.locator('#person').waitFor();
  const shown = await page.locator('#person').innerText();
  assert.equal(shown, person);
  return { page, seen };
}

const namespaces = (seen) => [...new Set(seen.answers.flatMap((answer) => answer.data.result.map((one) => one.metric.namespace)))].sort();

before(async () => {
  const one = await browser();
  const page = one.context.pages()[0];
  await visit(page, 'grace', '/');
  const headers = { 'content-type': 'application/json' };
  const answer = await ask(page, '/api/v1/projects/team-b/dashboards', { method: 'POST', headers, body: JSON.stringify(DASHBOARD) });
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  await one.close();
});

test('eight panels for two people, each with their own data', async () => {
  const seen = {};
  for (const person of ['ada', 'grace']) {
    const look_ = await look(person);
    const { page } = look_;
    await page.getByText('eight panels').waitFor();
    await page.locator('canvas').nth(3).waitFor();
    for (let round = 0; round < 60 && look_.seen.answers.length < 6; round += 1) await page.waitForTimeout(250);
    await page.waitForTimeout(1500);
    await picture(page, `eight-panels-${person}`);
    for (const call of look_.seen.calls) assert.equal(call.status, 200, `${person}: ${JSON.stringify(call)}`);
    assert.deepEqual(look_.seen.problems, []);
    // Six over time; the table asks for the moment.
    assert.equal(look_.seen.answers.length, 6);
    assert.ok(look_.seen.answers.every((answer) => answer?.status === 'success'));
    assert.ok(look_.seen.answers.some((answer) => answer.data.result[0].values.length > 30), 'two days of points');
    for (const alert of await page.getByRole('alert').allInnerTexts()) assert.fail(`${person}: ${alert}`);
    seen[person] = namespaces(look_.seen);
    const lines = new Set(look_.seen.calls.map((call) => call.line));
    for (const line of [
      'GET /api/config', 'GET /api/v1/user/whoami', `GET /api/v1/users/${person}/permissions`, 'GET /api/v1/health',
      'GET /api/v1/projects/team-b', 'GET /api/v1/projects/team-b/dashboards/eight', 'GET /api/v1/globalvariables',
      'GET /api/v1/projects/team-b/variables', 'GET /api/v1/globaldatasources', 'GET /api/v1/datasources', 'GET /api/v1/plugins',
      'POST /proxy/globaldatasources/prometheus/api/v1/query_range', 'POST /api/v1/view', 'POST /proxy/globaldatasources/prometheus/api/v1/query',
    ]) assert.ok(lines.has(line), `${line} was not asked: ${[...lines].join('\n')}`);
    assert.ok([...lines].some((line) => /^GET \/plugins\/.*mf-manifest.json$/.test(line)));
    assert.ok([...lines].some((line) => /^GET \/plugins\/.*\/__mf\//.test(line)));
  }
  assert.deepEqual(seen.ada, ['team-a', 'team-b']);
  assert.deepEqual(seen.grace, ['team-b']);
});

test('who may nothing sees nothing of it', async () => {
  const one = await browser();
  opened.push(one);
  const page = one.context.pages()[0];
  const answers = [];
  page.on('response', (answer) => answers.push(answer));
  await visit(page, 'eve', '/projects/team-b/dashboards/eight');
  await picture(page, 'eight-panels-eve');
  assert.equal(await page.locator('canvas').count(), 0);
  assert.ok(!(await page.content()).includes('Eight panels'));
});

// Perses 0.54's UI, as its calls were written down: method, path, and what an editor of the project gets, and a stranger.
const CALLS = [
  ['GET', '/api/config', 200, 200],
  ['GET', '/api/v1/user/whoami', 200, 200],
  ['GET', '/api/v1/users/NAME/permissions', 200, 200],
  ['GET', '/api/v1/health', 200, 200],
  ['GET', '/api/v1/projects', 200, 200],
  ['GET', '/api/v1/dashboards?metadata_only=true', 200, 200],
  ['GET', '/api/v1/globaldatasources', 200, 200],
  ['GET', '/api/v1/datasources', 200, 200],
  ['GET', '/api/v1/globalvariables', 200, 200],
  ['GET', '/api/v1/plugins', 200, 200],
  ['GET', '/api/v1/projects/team-b', 200, 404],
  ['GET', '/api/v1/projects/team-b/ephemeraldashboards', 200, 404],
  ['GET', '/api/v1/projects/team-b/dashboards?metadata_only=true', 200, 404],
  ['GET', '/api/v1/projects/team-b/dashboards?', 200, 404],
  ['GET', '/api/v1/projects/team-b/folders?', 200, 404],
  ['GET', '/api/v1/projects/team-b/variables', 200, 404],
  ['GET', '/api/v1/projects/team-b/datasources', 200, 404],
  ['GET', '/api/v1/projects/team-b/secrets', 200, 404],
  ['GET', '/api/v1/projects/team-b/roles', 404, 404],
  ['GET', '/api/v1/projects/team-b/rolebindings', 404, 404],
  ['GET', '/api/v1/projects/team-b/dashboards/eight', 200, 404],
  ['POST', '/proxy/globaldatasources/prometheus/api/v1/query_range', 200, 403, { query: 'up', start: 'START', end: 'NOW', step: '60' }],
  ['POST', '/proxy/globaldatasources/prometheus/api/v1/query', 200, 403, { query: 'up', time: 'NOW' }],
  ['GET', '/proxy/globaldatasources/prometheus/api/v1/label/namespace/values?match%5B%5D=up&start=START&end=NOW', 200, 403],
  ['POST', '/proxy/globaldatasources/prometheus/api/v1/labels', 200, 403, { 'match[]': 'up', start: 'START', end: 'NOW' }],
  ['POST', '/proxy/globaldatasources/prometheus/api/v1/series', 200, 403, { 'match[]': 'up', start: 'START', end: 'NOW' }],
  ['POST', '/proxy/globaldatasources/prometheus/api/v1/parse_query', 200, 403, { query: 'up' }],
  ['GET', '/proxy/globaldatasources/prometheus/api/v1/metadata', 200, 403],
  ['GET', '/proxy/globaldatasources/prometheus/api/v1/status/flags', 200, 403],
  ['POST', '/api/v1/view', 200, 404, { project: 'team-b', dashboard: 'eight', render_time: 1, render_errors: 0 }],
  ['PUT', '/api/v1/projects/team-b/dashboards/eight', 200, 404, DASHBOARD],
];

test('the calls of the stock UI, replayed', async () => {
  for (const [at, person] of [[2, 'grace'], [3, 'eve']]) {
    const one = await browser();
    opened.push(one);
    const page = one.context.pages()[0];
    await visit(page, person, '/');
    const surprises = [];
    for (const call of CALLS) {
      const [method, path, , , words] = call;
      const now = Math.floor(Date.now() / 60_000) * 60;
      const fill = (text) => text.replaceAll('NAME', person).replaceAll('START', `${now - 3600}`).replaceAll('NOW', `${now}`);
      const options = { method, headers: { 'content-type': 'application/json', accept: 'application/json' } };
      if (words && path.startsWith('/proxy/')) {
        options.headers['content-type'] = 'application/x-www-form-urlencoded';
        options.body = fill(new URLSearchParams(words).toString());
      } else if (words) {
        options.body = JSON.stringify(words);
      }
      const answer = await askFrom(page, fill(path), options);
      if (answer.status !== call[at]) surprises.push(`${person}: ${method} ${path}: ${answer.status}, not ${call[at]}: ${JSON.stringify(answer.body).slice(0, 200)}`);
    }
    assert.deepEqual(surprises, []);
  }
});

// From a page that lets scripts ask, or beside one that does not.
async function askFrom(page, path, options) {
  const { askApart } = await import('./world.mjs');
  const { body, ...rest } = options;
  return askApart(page, path, { ...rest, data: body, headers: { ...rest.headers, origin: world.https } });
}
