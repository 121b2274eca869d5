// An answering system for the messages between the 2200 and the 2300, written from their document alone, that does what
// the document allows and hardly anybody would do. It prints its URL and serves until it is ended.
//
//   node tests/hubs/qi.mjs [--plain] [--seed N] [--slow MS] [--bug NAME] [--without COMMAND]
//
// Commands: `execute` (needs a payload, returns values), `get_system_info` (takes none, returns values), `abort` (takes
// none, returns nothing), `calibrate` (fails), `état du système/2300` (as get_system_info). Everything else fails.
//
// Its odd habits, and why they are legal (`--plain` turns them off, `--seed` chooses others, `--slow` bounds the delay):
//  1. Members stand in any order, with any whitespace, letters as \u escapes: json.loads reads them all the same.
//  2. A reply has members more than those listed (`id`, `source`, `x-träger`): the format may be modified in a backwards
//     compatible manner, and "the most basic information needed" is a lower bound.
//  3. Replies come late, and each as late as it likes: no time is named.
//  4. A later request may be answered earlier, on one connection and over several: no order is named, the session
//     identifier "validates the request and reply".
//  5. `payload` of a success is absent, empty or nested, for each reply anew: its presence depends on the command.
//  6. The text of a failure is any text, in any language, with line breaks, or of 33,000 letters.
//  7. `version` is any semantic version 0.y.z, also with a pre-release and build metadata, and it may be the requester's.
//  8. Whether a request's own version is looked at is not said: some seeds refuse what is not 0.y.z, others do not.
//  9. What is no request (not JSON, no dict, no command) gets a failure, nothing at all, or a close: nothing is said of it.
// 10. A request without `version` may be executed or fail, and a payload for a command that takes none may be ignored or
//     refused ("presence depends on the specific command").
// 11. A session_id that is no string is copied as it is, or left out of a failure.
// 12. The hub asks, too: communication is "between" both systems, so a request of its own may come at any time, and what
//     the peer answers is read by nobody.
// 13. Messages come in fragments, cut inside of letters, with pings and unasked pongs between (RFC 6455, 5.4 and 5.5.3).
// 14. The handshake has spellings and headers that only few send, and sometimes a 103 before it (RFC 9110, 15.2).
// 15. Any path and any query are the hub's; an offered subprotocol is not taken (RFC 6455, 4.2.2).
import { chance, close, newId, nothing, odd, pick, serve, setUp, text, transmit, below } from './odd.mjs';

const options = process.argv.slice(2);
const valueOf = (name, otherwise) => (options.includes(name) ? Number(options[options.indexOf(name) + 1]) : otherwise);
const slow = valueOf('--slow', 150);
setUp({ seed: valueOf('--seed', 1), plain: options.includes('--plain'), slow: slow / 2 });

// Mistakes that somebody might make: a judge should see them behind all habits.
const BUGS = ['quiet-failures', 'forgets-session', 'short-ids', 'lists-values', 'short-version', 'answers-twice', 'wants-payload', 'knows-everything'];
const bug = options.includes('--bug') ? options[options.indexOf('--bug') + 1] : undefined;
if (bug !== undefined && !BUGS.includes(bug)) throw new Error(`--bug is one of ${BUGS.join(', ')}`);

const SEMVER = /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/;
const VERSION = pick('0.1.0', '0.0.0', '0.10.0-rc.1', '0.1.0+2300.007', '0.999999999999.4', '0.1.0-alpha--x.0.y+sha-5114f85');
const REFUSES_VERSIONS = chance(0.5);

class Failure extends Error {}

/** Each takes the payload and returns the reply's payload, or nothing. */
const COMMANDS = {
  execute(payload) {
    if (payload === undefined) throw new Failure(text('execute needs a payload'));
    return pick({ results: { '00': 0.5, 11: 0.5 }, shots: 1024 }, { result: null }, undefined, {}, { status: 'failure', payload: 'quoted' });
  },
  get_system_info(payload) {
    if (payload !== undefined && Object.keys(payload).length && chance(0.3)) throw new Failure(text('get_system_info takes no arguments'));
    return pick({ name: 'Starmon-5', qubits: 5 }, { name: '\u{1F9CA} 20 mK\u0000', topology: [[0, 2], [1, 2], []], session_id: 'of no request' }, {});
  },
  calibrate() {
    throw new Failure(text('the fridge is warm'));
  },
  abort: () => pick(undefined, {}),
  'état du système/2300': () => ({ état: 'prêt' }),
};
if (options.includes('--without')) delete COMMANDS[options[options.indexOf('--without') + 1]];

/** Whether there is a reply, and when. */
function answer(conn, content) {
  let request;
  try {
    request = JSON.parse(content);
  } catch {
    return refuseNoRequest(conn, 'this is not JSON');
  }
  if (request === null || typeof request !== 'object' || Array.isArray(request)) return refuseNoRequest(conn, 'a message is a dict');
  if ('status' in request && !('command' in request)) return undefined; // a reply to what the hub asked
  if (typeof request.command !== 'string') return refuseNoRequest(conn, 'a request has a command');
  const wait = odd ? below(slow / 2) : 0;
  setTimeout(() => {
    const said = spoil(reply(request));
    transmit(conn, said);
    if (bug === 'answers-twice') transmit(conn, said);
  }, wait);
  return undefined;
}

function spoil(said) {
  const failure = said.status === 'failure';
  if (bug === 'quiet-failures' && failure) delete said.payload;
  if (bug === 'forgets-session' && failure) delete said.session_id;
  if (bug === 'short-ids') said.session_id = said.session_id?.slice(0, 36);
  if (bug === 'lists-values' && said.payload && !failure) said.payload = Object.values(said.payload);
  if (bug === 'short-version') said.version = said.version.replace(/\.\d+(-|\+|$).*/, '');
  return said;
}

function refuseNoRequest(conn, why) {
  const way = pick('failure', 'silence', 'close');
  if (way === 'failure') transmit(conn, { status: 'failure', payload: text(why), version: VERSION });
  if (way === 'close') close(conn, pick(1003, 1000), why);
}

function reply({ session_id: session, command, payload, version }) {
  const format = typeof version === 'string' && /^0\./.test(version) && SEMVER.test(version) ? pick(VERSION, version) : VERSION;
  const noString = session !== undefined && typeof session !== 'string';
  try {
    if (noString) throw new Failure(text('session_id is a string'));
    return { session_id: session, status: 'success', payload: execute(command, payload, version), version: format };
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    const id = noString ? pick(undefined, session) : session;
    const long = chance(0.1) ? 'ü\n'.repeat(16500) : '';
    return { session_id: id, status: 'failure', payload: failure.message + long, version: format };
  }
}

function execute(command, payload, version) {
  if (payload !== undefined && (payload === null || typeof payload !== 'object' || Array.isArray(payload))) throw new Failure(text('payload is a dict'));
  if (version === undefined ? !chance(0.5) : typeof version !== 'string' || !SEMVER.test(version)) throw new Failure(text('version is a semantic version'));
  if (version !== undefined && REFUSES_VERSIONS && !version.startsWith('0.')) throw new Failure(text(`version ${version} is not spoken here`));
  if (payload === undefined && bug === 'wants-payload') throw new Failure('payload is missing');
  if (!Object.hasOwn(COMMANDS, command) && bug === 'knows-everything') return undefined;
  if (!Object.hasOwn(COMMANDS, command)) throw new Failure(text(`there is no command ${command}`));
  return COMMANDS[command](payload);
}

/** What the hub wants to know of its peer. */
function ask(conn) {
  const session = chance(0.5) ? newId('s') : undefined;
  transmit(conn, { command: pick('get_system_info', 'execute'), session_id: session, payload: pick(undefined, { why: nothing() }), version: VERSION });
}

const server = serve({
  came(conn) {
    if (chance(0.3)) ask(conn);
  },
  said(conn, content) {
    if (chance(0.1)) ask(conn);
    answer(conn, content);
  },
  left() {},
});
server.listen(0, '127.0.0.1', () => console.log(`ws://127.0.0.1:${server.address().port}`));
