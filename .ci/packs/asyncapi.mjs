// The official AsyncAPI parser reads the asyncapi.yaml of each pack in schemas/ and examples/packs/: errors and warnings must
// both be zero.
// It looks neither inside the 2020-12 schemas nor at their examples; ajv.mjs does.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Parser } from '@asyncapi/parser';

const folders = ['schemas', 'examples/packs'].map((name) => fileURLToPath(new URL(`../../${name}/`, import.meta.url)));
const severities = ['error', 'warning']; // the parser's 0 and 1; its infos and hints are advice on taste

const packs = folders.flatMap((folder) => readdirSync(folder).map((name) => [name, `${folder}${name}/asyncapi.yaml`]));
const protocols = packs.filter(([, file]) => existsSync(file));
let bad = protocols.length === 0;
if (bad) console.error(`no asyncapi.yaml under ${folders.join(' and ')}`);

for (const [protocol, file] of protocols) {
  const { document, diagnostics } = await new Parser().parse(readFileSync(file, 'utf8'), { source: file });
  const counts = { error: 0, warning: 0 };
  for (const { severity, code, message, path, range } of diagnostics) {
    const word = severities[severity];
    if (!word) continue;
    counts[word] += 1;
    console.error(`${protocol}/asyncapi.yaml:${range.start.line + 1}: ${word} ${code} at ${path.join('.')}: ${message}`);
  }
  const read = document
    ? `AsyncAPI ${document.version()}, ${document.allMessages().length} messages, ${document.allOperations().length} operations`
    : 'not readable';
  console.log(`asyncapi ${protocol}: ${read}, ${counts.error} errors, ${counts.warning} warnings`);
  bad ||= !document || counts.error + counts.warning > 0;
}
process.exitCode = bad ? 1 : 0;
