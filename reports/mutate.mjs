// Mutants of a hub in Node, made by Stryker's instrumenter: node mutate.mjs FOLDER SOURCE
//
// FOLDER is where @stryker-mutator/instrumenter is installed. Prints JSON: the mutants, and the hub with all of them switched off,
// which writes the numbers of those that were reached to a file: its name is that in REACHED and the id of the process.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [folder, path] = process.argv.slice(2);
const { resolve } = createRequire(`${folder}/package.json`);
const { Instrumenter } = await import(new URL('index.js', pathToFileURL(resolve('@stryker-mutator/instrumenter/package.json').replace('package.json', 'dist/src/'))));

// What replaces texts, whole objects and whole functions breaks a hub in every conversation.
const excludedMutations = ['StringLiteral', 'ObjectLiteral', 'ArrayDeclaration', 'ArrowFunction', 'Regex'];
const logger = { debug() {}, info() {}, warn() {}, isDebugEnabled: () => false };
const content = readFileSync(path, 'utf8');
const instrumenter = new Instrumenter(logger);
const { files, mutants } = await instrumenter.instrument([{ name: path, mutate: true, content }], { plugins: null, excludedMutations, ignorers: [] });
const starts = [0];
for (const line of content.split('\n')) starts.push(starts.at(-1) + line.length + 1);
const offset = ({ line, column }) => starts[line] + column;
const tail = `
import { writeFileSync as writeReached } from 'node:fs';
const reach = () => writeReached(\`\${process.env.REACHED}.\${process.pid}\`, Object.keys(globalThis.__stryker__?.mutantCoverage?.static ?? {}).join(' '));
setInterval(reach, 100).unref();
process.on('exit', reach);
`;
console.log(JSON.stringify({
  mutants: mutants.filter(({ status }) => status !== 'Ignored').map(({ id, mutatorName, location, replacement }) => ({
    number: id, operator: mutatorName, line: location.start.line + 1, from: offset(location.start), to: offset(location.end), replacement,
  })),
  instrumented: files[0].content + tail,
}));
