// Compares the packs with a catalogue folder (messages.json, rules.json): the same message names, and under every rule id
// the same level, basis and line. Protocols without a folder under schemas/ are passed over.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

const [catalogue] = process.argv.slice(2);
if (!catalogue) {
  console.error('usage: node catalogue.mjs FOLDER');
  process.exit(2);
}
const schemas = fileURLToPath(new URL('../../schemas/', import.meta.url));
const read = (path) => readFileSync(path, 'utf8');
const messages = JSON.parse(read(`${catalogue}/messages.json`));
const rules = JSON.parse(read(`${catalogue}/rules.json`));

// Read off the documents after the catalogue was made.
const later = ['AIR-113', 'CON-120', 'QI-033', 'QI-034', 'EMP-140', 'EMP-141', 'EMP-142', 'EMP-143'];

let bad = 0;
let seen = 0;
const complain = (text) => {
  bad += 1;
  console.error(text);
};
const compareNames = (where, expected, got) => {
  for (const name of expected) if (!got.includes(name)) complain(`${where}: ${name} is missing`);
  for (const name of got) if (!expected.includes(name)) complain(`${where}: ${name} is not in the catalogue`);
};

for (const protocol of new Set(messages.map((message) => message.protocol))) {
  const pack = `${schemas}${protocol}/`;
  if (!existsSync(pack)) continue;
  seen += 1;
  const names = messages.filter((message) => message.protocol === protocol).map((message) => message.name);
  const files = readdirSync(`${pack}messages`).map((name) => name.replace('.schema.json', ''));
  compareNames(`${protocol}/messages`, names, files);
  compareNames(`${protocol}/asyncapi.yaml`, names, Object.keys(parse(read(`${pack}asyncapi.yaml`)).components.messages));

  const expected = rules.filter((rule) => rule.protocol === protocol);
  const got = parse(read(`${pack}rules.yaml`)).rules;
  const ids = Object.keys(got).filter((id) => !later.includes(id));
  compareNames(`${protocol}/rules.yaml`, expected.map((rule) => rule.id), ids);
  for (const { id, level, basis, seed_line: line } of expected) {
    for (const [key, value] of Object.entries({ level, basis, line })) {
      if (got[id] && got[id][key] !== value) complain(`${protocol}/rules.yaml: ${id} has ${key} ${got[id][key]}, the catalogue ${value}`);
    }
  }
  console.log(`catalogue ${protocol}: ${names.length} messages, ${expected.length} rules`);
}
if (seen === 0) complain(`no protocol of ${catalogue} under ${schemas}`);
console.log(`catalogue: ${bad} differences`);
process.exitCode = bad ? 1 : 0;
