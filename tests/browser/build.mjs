// Builds what the browser shows: the page into FOLDER/app, and Perses' plugins with their bundles into FOLDER/plugins.
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

const folder = process.argv[2];
const here = new URL('.', import.meta.url).pathname;
mkdirSync(join(folder, 'app'), { recursive: true });

// What the plugins share with the page must be one copy: whoever requires a package gets the one that is imported.
const once = {
  name: 'once',
  setup: ({ onResolve, resolve }) => onResolve({ filter: /^[^./]/ }, ({ path, kind, importer, resolveDir, pluginData }) => {
    if (kind !== 'require-call' || pluginData === once || !importer.includes('/@perses-dev/')) return undefined;
    return resolve(path, { kind: 'import-statement', importer, resolveDir, pluginData: once });
  }),
};
await build({
  entryPoints: [join(here, 'ui/page.jsx')],
  outfile: join(folder, 'app/page.js'),
  bundle: true,
  minify: true,
  jsx: 'transform',
  define: { 'process.env.NODE_ENV': '"production"', global: 'globalThis' },
  loader: { '.woff': 'dataurl', '.woff2': 'dataurl', '.svg': 'dataurl' },
  plugins: [once],
  logLevel: 'error',
});
writeFileSync(join(folder, 'app/index.html'), '<!doctype html><html lang=en><meta charset=utf-8><title>Perses</title><link rel=icon href="data:,"><link rel=stylesheet href=/page.css><body><div id=root></div><script src=/page.js></script></body></html>\n');
if (!existsSync(join(folder, 'app/page.css'))) writeFileSync(join(folder, 'app/page.css'), '');

// Perses takes the schemas of the test stack; the browser takes the bundles of the published plugins.
const schemas = join(here, '../stack/schemas');
const packages = join(here, 'node_modules/@perses-dev');
for (const name of readdirSync(schemas)) cpSync(join(schemas, name), join(folder, 'plugins', name), { recursive: true });
for (const name of readdirSync(packages).filter((name) => name.endsWith('-plugin'))) {
  const manifest = JSON.parse(readFileSync(join(packages, name, 'mf-manifest.json'), 'utf8'));
  const target = join(folder, 'plugins', manifest.name);
  if (!existsSync(target)) continue;
  cpSync(join(packages, name, '__mf'), join(target, '__mf'), { recursive: true });
  writeFileSync(join(target, 'mf-manifest.json'), JSON.stringify(manifest));
}
