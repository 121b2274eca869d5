// Holds the conversations of a self-test in tests/strangers with the correct hub, and stops at the first that goes wrong: `mutants` runs
// it where the self-test runs, in Node. These self-tests run when they are imported, so a copy of the self-test gets another end.
//
//     hold.mjs PROTOCOL FOLDER [NAME]     FOLDER: of hub.mjs and selftest.mjs; NAME: a conversation to begin with
//
// Prints what went wrong and, last, the name of the conversation, and exits with 1.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

// Per protocol: where the end of the self-test begins, and what takes its place. `wrong` returns undefined or what was wrong.
const ENDS = {
  airavata: ['\nconst args = process.argv.slice(2);', `
    await withHub([], (hub) => hold(Object.keys(CONVERSATIONS), (name) => converse(hub, name, 15000)));`],
  concierge: ['\nmain();', `
    const held = await startHub([]);
    await hold(Object.keys(conversations), async (name) => (await converse(held, name))?.text);
    await held.stop();`],
  emprops: ['\nmain().catch', `
    const held = await startHub([]);
    await hold([...TALKS.keys()], (name) => runTalk(TALKS.get(name), held.port, LONG_DEADLINE));
    await stopHub(held);`],
  gator: ['\nconst { bugs, variants } = await', `
    const held = await start([]);
    await hold(Object.keys(CONVERSATIONS), async (name) => {
      const got = await converse(held, name, 10000);
      return isDeepStrictEqual(got, CONVERSATIONS[name][0]) ? null : show(got);
    });
    await held.end();`],
  qi: ['\nmain();', `
    await withHub({}, (hub) => hold(Object.keys(TESTS), async (name) => {
      const wrong = [], result = await converse(hub, TESTS[name], wrong);
      return result === true && !wrong.length ? null : [result, ...wrong].join('; ');
    }));`],
};

const [protocol, folder, first] = process.argv.slice(2);
const [begin, end] = ENDS[protocol];
const [body, rest] = readFileSync(path.join(folder, 'selftest.mjs'), 'utf8').split(begin);
if (rest === undefined) throw new Error(`the self-test does not contain ${begin}`);
const held = path.join(folder, 'held.mjs');
writeFileSync(held, `${body.replace('PATIENCE = 60000', 'PATIENCE = 15000')}
async function hold(names, wrong) {
  const first = ${JSON.stringify(first ?? null)};
  for (const name of names.sort((a, b) => (b === first) - (a === first))) {
    const text = await wrong(name);
    if (text) {
      console.log(\`\${text}\\n\${name}\`);
      process.exit(1);
    }
  }
}
${end}
process.exit(0);
`);
process.on('uncaughtException', (error) => {
  console.log(`${error.stack}\n-`);
  process.exit(1);
});
await import(pathToFileURL(held));
