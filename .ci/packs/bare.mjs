// A second opinion on the plain documents under tests/fixtures/asyncapi: the official parser reads each by itself, and ajv (draft-07,
// as AsyncAPI has it) agrees with every line of FILE, a JSON array of { pack, message, odd, payload, valid }.
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Parser } from '@asyncapi/parser';
import Ajv from 'ajv';
import addFormats from 'ajv-formats';

const [file] = process.argv.slice(2);
if (!file) {
  console.error('usage: node bare.mjs FILE');
  process.exit(2);
}
const packs = fileURLToPath(new URL('../../tests/fixtures/asyncapi/', import.meta.url));

let bad = 0;
const complain = (text) => {
  bad += 1;
  if (bad <= 40) console.error(text);
};

const validators = new Map();
for (const pack of readdirSync(packs)) {
  const name = readdirSync(packs + pack).find((name) => name.startsWith('asyncapi.'));
  const source = `${packs}${pack}/${name}`;
  const { document, diagnostics } = await new Parser().parse(readFileSync(source, 'utf8'), { source });
  for (const { severity, message, path } of diagnostics.filter(({ severity }) => severity === 0)) {
    complain(`${pack}: error ${severity} at ${path.join('.')}: ${message}`);
  }
  if (!document) continue;
  const ajv = addFormats(new Ajv({ strict: false, allErrors: true }));
  for (const message of document.allMessages()) {
    validators.set(`${pack}/${message.name() ?? message.id()}`, ajv.compile(message.payload()?.json() ?? true));
    validators.set(`${pack}/${message.id()}`, validators.get(`${pack}/${message.name() ?? message.id()}`));
  }
}

const cases = JSON.parse(readFileSync(file, 'utf8'));
if (cases.length === 0) complain(`${file}: no cases`);
let valid = 0;
for (const { pack, message, odd, payload, valid: expected } of cases) {
  const validate = validators.get(`${pack}/${message}`);
  if (!validate) complain(`${pack}: the parser knows no message ${message}`);
  else if (validate(payload) !== expected) {
    complain(`${pack}/${message}: ${expected ? 'refused' : 'accepted'} by ajv: ${odd}: ${JSON.stringify(payload)}`);
  }
  valid += expected;
}
console.log(`bare: ${validators.size} names of messages, ${cases.length} cases, ${valid} of them valid, ${bad} disagreements`);
process.exitCode = bad ? 1 : 0;
