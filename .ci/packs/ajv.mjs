// A second JSON Schema validator (ajv, 2020 dialect) has its say on the packs: every example fits its schema, and it
// agrees with every line of FILE, a JSON array of { protocol, message, mutation, payload, valid }.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import Ajv2020 from 'ajv/dist/2020.js';

const [file] = process.argv.slice(2);
if (!file) {
  console.error('usage: node ajv.mjs FILE');
  process.exit(2);
}
const schemas = fileURLToPath(new URL('../../schemas/', import.meta.url));
const json = (path) => JSON.parse(readFileSync(path, 'utf8'));

// strictRequired is off because `required` may stand in an `allOf` of its own, apart from `properties`, to name its rules.
const ajv = new Ajv2020({ strict: true, strictRequired: false, allowUnionTypes: true, allErrors: true });
ajv.addVocabulary(['x-rules', 'x-should', 'x-example']);
// What stands under x-should has the types of its surroundings, which this compiler cannot see; formats are the judge's.
const lenient = new Ajv2020({ strict: true, strictRequired: false, strictTypes: false, validateFormats: false });

const shown = 40; // complaints printed in full; all are counted
let bad = 0;
const complain = (text) => {
  bad += 1;
  if (bad <= shown) console.error(text);
  if (bad === shown) console.error('...');
};

/** Every `x-should` of a schema, wherever it stands outside the examples. */
function* shoulds(node) {
  if (node === null || typeof node !== 'object') return;
  for (const [key, value] of Object.entries(node)) {
    if (key === 'x-should') yield* value;
    if (key !== 'examples') yield* shoulds(value);
  }
}

const validators = new Map();
const counts = { schemas: 0, shoulds: 0, examples: 0 };
for (const protocol of readdirSync(schemas)) {
  const folder = `${schemas}${protocol}/messages/`;
  if (!existsSync(folder)) continue;
  for (const name of readdirSync(folder)) {
    const where = `${protocol}/messages/${name}`;
    const message = `${protocol}/${name.replace('.schema.json', '')}`;
    try {
      const schema = json(folder + name);
      const validate = ajv.compile(schema);
      validators.set(message, validate);
      counts.schemas += 1;
      for (const { schema: wish } of shoulds(schema)) {
        lenient.compile(wish);
        counts.shoulds += 1;
      }
      if (!schema.examples?.length) complain(`${where}: no example`);
      for (const example of schema.examples ?? []) {
        counts.examples += 1;
        if (!validate(example)) complain(`${where}: its example does not fit: ${ajv.errorsText(validate.errors)}`);
      }
    } catch (error) {
      complain(`${where}: ${error.message}`);
    }
  }
}
if (counts.schemas === 0) complain(`no schema under ${schemas}`);

const cases = json(file);
if (cases.length === 0) complain(`${file}: no cases`);
for (const { protocol, message, mutation, payload, valid } of cases) {
  const validate = validators.get(`${protocol}/${message}`);
  if (!validate) complain(`${protocol}/${message}: no such schema (${mutation})`);
  else if (validate(payload) !== valid) {
    complain(`${protocol}/${message}: ${valid ? 'refused' : 'accepted'} by ajv: ${mutation}: ${JSON.stringify(payload)}`);
  }
}
console.log(
  `ajv: ${counts.schemas} schemas with ${counts.shoulds} x-should, ${counts.examples} examples, ${cases.length} cases, ${bad} disagreements`,
);
process.exitCode = bad ? 1 : 0;
