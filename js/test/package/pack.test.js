// The package as it would be published: packed, installed into an empty folder,
// imported, required, type-checked, and every JS snippet of the README run.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const bin = (name) => join(root, 'node_modules/.bin', name);
const run = (command, args, cwd) => execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 120_000 });

let folder;
let tarball;
let packed;
const at = (...parts) => join(folder, ...parts);

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'edgeweir-pack-'));
  packed = JSON.parse(run('npm', ['pack', '--json', '--pack-destination', folder], root));
  packed = Array.isArray(packed) ? packed[0] : Object.values(packed)[0];
  tarball = at(readdirSync(folder).find((file) => file.endsWith('.tgz')));
  writeFileSync(at('package.json'), '{"name":"user","private":true}');
  run('npm', ['install', '--offline', '--no-audit', '--no-fund', tarball], folder);
});

after(() => rmSync(folder, { recursive: true, force: true }));

test('the tarball is small, and has what it should and nothing else', (t) => {
  const size = statSync(tarball).size;
  t.diagnostic(`packed ${size} bytes, unpacked ${packed.unpackedSize} bytes, ${packed.files.length} files`);
  const files = packed.files.map((f) => f.path);
  for (const file of ['package.json', 'README.md', 'LICENSE', 'dist/esm/index.js', 'dist/esm/index.d.ts', 'dist/cjs/index.js', 'dist/cjs/index.d.ts', 'dist/edgeweir.wasm']) {
    assert.ok(files.includes(file), file);
  }
  assert.deepEqual(files.filter((file) => !/^(dist\/|package\.json$|README\.md$|LICENSE$)/.test(file)), []);
  const manifest = JSON.parse(readFileSync(at('node_modules/edgeweir/package.json'), 'utf8'));
  assert.equal(manifest.dependencies, undefined, 'no runtime dependency');
});

const PROGRAM = `
const l = new RateLimiter({ rateLimit: 2 });
console.log([l.isAllowed('a'), l.isAllowed('a'), l.isAllowed('a')].join());
`;

test('it can be imported', () => {
  writeFileSync(at('use.mjs'), `import { RateLimiter } from 'edgeweir';${PROGRAM}`);
  assert.equal(run('node', ['use.mjs'], folder), 'true,true,false\n');
});

test('it can be required', () => {
  writeFileSync(at('use.cjs'), `const { RateLimiter } = require('edgeweir');${PROGRAM}`);
  assert.equal(run('node', ['use.cjs'], folder), 'true,true,false\n');
});

test('both module kinds type-check strictly', () => {
  for (const [file, module] of [['types.mts', 'nodenext'], ['types.cts', 'nodenext'], ['bundled.ts', 'esnext']]) {
    writeFileSync(at(file), `import { RateLimiter } from 'edgeweir';\nconst l: RateLimiter = new RateLimiter({ rateLimit: 2 });\nexport const yes: boolean = l.isAllowed('a');\n`);
    run(bin('tsc'), ['--strict', '--noEmit', '--target', 'es2022', '--module', module, '--moduleResolution', module === 'esnext' ? 'bundler' : module, '--types', '', '--lib', 'es2022,dom', file], folder);
  }
});

test('publint and arethetypeswrong find nothing', () => {
  const lint = run(bin('publint'), ['--strict', join(folder, 'node_modules/edgeweir')], folder);
  assert.match(lint, /All good/);
  run(bin('attw'), [tarball, '--exclude-entrypoints', 'edgeweir.wasm', '--no-color'], folder);
});

test('every snippet of the README runs', (t) => {
  const readme = readFileSync(at('node_modules/edgeweir/README.md'), 'utf8');
  const snippets = [...readme.matchAll(/```js\n([\s\S]*?)```/g)].map((match) => match[1]);
  assert.ok(snippets.length > 0);
  for (const [n, snippet] of snippets.entries()) {
    const missing = [...snippet.matchAll(/from '([^'.][^']*)'/g)].map((m) => m[1]).filter((name) => !name.startsWith('node:') && name !== 'edgeweir');
    // Frameworks come from this repository: the snippet is the user's, the framework theirs.
    for (const name of missing) run('npm', ['install', '--offline', '--no-save', '--no-audit', '--no-fund', tarball, join(root, 'node_modules', name)], folder);
    writeFileSync(at(`readme-${n}.mjs`), snippet);
    const out = run('node', [`readme-${n}.mjs`], folder);
    t.diagnostic(`snippet ${n + 1}: ${out.trim().split('\n').join(' | ')}`);
    const expected = [...snippet.matchAll(/console\.log\(.*?\); \/\/ (.*)$/gm)].map((m) => m[1]);
    assert.deepEqual(out.trim() === '' ? [] : out.trim().split('\n'), expected, snippet);
  }
});
