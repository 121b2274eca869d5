#!/usr/bin/env node
// Airavata Scheduler WebSocket hub, written from the protocol document.
// See README.md for the readings of open points, the options and the controls.

import http from 'node:http';
import crypto from 'node:crypto';
import { WebSocketServer } from 'ws';

// ---------------------------------------------------------------------------
// Planted bugs. One of them can be switched on with --bug NAME.
// [name, kind, line, sentence, does, seen]

const BUG_ROWS = [
  // --- history
  ['unsubscribe-after-error', 'history', 532, 'To unsubscribe from resources or events: send an unsubscription request.',
    'After a malformed text on the connection, an unsubscription is acknowledged and not carried out.',
    'Send malformed text, unsubscribe, cause an event: it still arrives.'],
  ['resubscribe-dead', 'history', 517, 'To subscribe to specific resources or events, send a subscription message.',
    'A resource once unsubscribed cannot be subscribed again on the same connection, though the answer says success.',
    'Subscribe, unsubscribe, subscribe, cause an event: nothing arrives.'],
  ['second-malformed-silent', 'history', 642, 'Invalid Message Format: an error message with "Invalid message format".',
    'Only the first malformed text of a connection is answered.',
    'Send malformed text twice: one error instead of two.'],
  ['project-stale', 'history', 569, 'project: all experiments in project.',
    'An experiment keeps the project it was first seen in for routing.',
    'Update an experiment to another project: subscribers of the new project get nothing.'],
  ['completed-mutes-tasks', 'history', 567, 'experiment: all experiment and task events.',
    'After experiment_completed, task events of the experiment no longer reach experiment subscribers.',
    'Complete an experiment, then cause task_completed for one of its tasks.'],
  ['reply-cache-by-id', 'history', 547, 'The server responds to subscription requests (with the resource asked for).',
    'The answer is cached by the id of the request, over all connections.',
    'Two connections subscribe to different resources with equal request ids: the second answer names the first resource.'],
  ['pong-stops-answers', 'history', 34, 'Ping/pong mechanism for connection health.',
    'After a pong from the client, pings of the client are not answered any more.',
    'Send pong, then ping: no pong comes.'],
  ['token-once', 'history', 99, 'Valid token: connection established successfully.',
    'A token whose connection has ended is refused when the client returns.',
    'Connect, close, connect again with the same token.'],
  ['error-text-sticks', 'history', 642, 'Invalid Message Format: an error message with "Invalid message format".',
    'After an unknown message type, malformed text is answered with "Unknown message type".',
    'Send an unknown type, then malformed text: the second error has the text of the first.'],
  ['summary-stale', 'history', 362, 'task_updated: the summary carries the status of the task.',
    'The status in the summary of a task is that of the first event of the task.',
    'task_created, then task_updated: task.status and summary.status differ.'],
  ['subscribe-toggles', 'history', 517, 'To subscribe to specific resources or events, send a subscription message.',
    'A repeated subscription request ends the subscription.',
    'Subscribe twice to a resource, cause an event: nothing arrives.'],
  ['heartbeat-ends-after-pong', 'history', 697, 'The server sends periodic ping messages to maintain connection health.',
    'A connection that has answered a ping gets no further pings.',
    'Answer the first ping with pong: no second ping comes.'],
  // --- several
  ['fifth-evicts-first', 'several', 579, 'Events are sent to clients subscribed to the specific resource.',
    'The fifth subscription by message on a connection silently ends the first.',
    'Subscribe to five resources, cause an event of the first.'],
  ['user-newest-only', 'several', 580, 'Events are sent to clients subscribed to the user.',
    'Of several connections subscribed to a user only the newest gets the events.',
    'Open /ws/user twice with one user: the first connection gets nothing.'],
  ['unsubscribe-for-all', 'several', 579, 'Events are sent to clients subscribed to the specific resource.',
    'An unsubscription by one client ends the subscriptions of all clients to that resource.',
    'Two clients subscribe, one unsubscribes, the other gets nothing.'],
  ['close-skips-next', 'several', 579, 'Events are sent to clients subscribed to the specific resource.',
    'When a subscriber disconnects, the subscriber that connected next after it misses one event.',
    'Three subscribers, the first leaves: the second misses the next event, the third gets it.'],
  ['sixth-in-burst', 'several', 579, 'Events are sent to clients subscribed to the specific resource.',
    'The sixth event of one subject within 300 ms is dropped.',
    'Cause six events of one experiment at once: five arrive.'],
  ['two-paths-twice', 'several', 138, 'id: unique message identifier.',
    'A client subscribed to an experiment and to its project gets each event twice, with equal id.',
    'Subscribe to both, count the messages with one id.'],
  ['newest-task-only', 'several', 588, 'Task Event -> Task Subscribers + Experiment Subscribers + Project Subscribers + User Subscribers.',
    'Experiment subscribers get only events of the task that was created last in the experiment.',
    'Create two tasks, update the first: nothing arrives.'],
  ['burst-order', 'several', 595, 'Events are delivered in the order they occur.',
    'In a burst of six or more the last two events are delivered in the wrong order.',
    'Cause six events in one batch: the sixth arrives before the fifth.'],
  ['burst-replies-last', 'several', 547, 'The server responds to subscription requests (with the resource asked for).',
    'When requests arrive before the first is answered, all answers name the resource of the last.',
    'Send three subscription requests at once: all answers name the third resource.'],
  ['one-project-per-connection', 'several', 581, 'Events are sent to clients subscribed to the project.',
    'A subscription to a second project ends the one to the first.',
    'Subscribe to two projects, cause an event in the first.'],
  ['type-shared-unsubscribe', 'several', 532, 'To unsubscribe from resources or events (of the type and id named).',
    'An unsubscription from a task also ends the subscription to the experiment with an equal id.',
    'Subscribe to task X and experiment X, unsubscribe from task X, cause an event of experiment X.'],
  // --- identity
  ['prefix-32', 'identity', 579, 'Events are sent to clients subscribed to the specific resource.',
    'Resource ids are compared by their first 32 characters.',
    'Subscribe to an id of 33 characters, cause an event of another id with equal first 32 characters.'],
  ['project-case', 'identity', 581, 'Events are sent to clients subscribed to the project.',
    'Project ids are compared without regard to case.',
    'Subscribe to project "P", cause an event in project "p".'],
  ['unicode-form', 'identity', 579, 'Events are sent to clients subscribed to the specific resource.',
    'Ids are brought to Unicode form C before they are compared.',
    'Subscribe to an id with a composed letter, cause an event of the decomposed one.'],
  ['task-gets-experiment', 'identity', 568, 'task: task events only.',
    'A subscriber of task X gets the events of experiment X.',
    'Subscribe to task X, cause experiment_updated of experiment X.'],
  ['owner-is-receiver', 'identity', 222, 'experiment_created: summary.ownerId is the owner of the experiment.',
    'summary.ownerId names the user of the receiving connection.',
    'Subscribe as another user than the owner.'],
  ['worker-of-last-task', 'identity', 432, 'task_failed: summary.workerId is the worker of the task.',
    'The summary of task_failed names the worker of the task that had an event before.',
    'Update task A with worker 1, fail task B with worker 2.'],
  ['task-id-as-experiment', 'identity', 148, 'Task events: task_{taskId}_{timestamp}.',
    'Task events to experiment subscribers carry an id of the form exp_{experimentId}_{timestamp}.',
    'Subscribe to the experiment only and read the id of a task event.'],
  ['user-prefix', 'identity', 580, 'Events are sent to clients subscribed to the user.',
    'A user also gets the events of users whose id begins with his.',
    'Connect as "u4" to /ws/user, cause an event of an experiment of "u45".'],
  ['reply-to-newest', 'identity', 547, 'The server responds to subscription requests.',
    'The answer goes to the newest connection of the user.',
    'One user, two connections: subscribe on the older one.'],
  ['project-of-last-experiment', 'identity', 588, 'Task Event -> Task Subscribers + Experiment Subscribers + Project Subscribers + User Subscribers.',
    'A task event goes to the project of the experiment that had an event last.',
    'Two experiments in two projects: cause a task event of the one seen first.'],
  ['progress-names-experiment', 'identity', 148, 'Task events: task_{taskId}_{timestamp}.',
    'The id of task_progress holds the id of the experiment when it goes to a project subscriber.',
    'Subscribe to the project only, read the id of task_progress.'],
  // --- neighbours
  ['expired-counts', 'neighbours', 765, 'Per user: 10 concurrent connections.',
    'Connections refused for an expired token count against the user for ever.',
    'Ten attempts with an expired token, then one with a valid token: refused.'],
  ['abort-keeps-slot', 'neighbours', 765, 'Per user: 10 concurrent connections.',
    'A connection that ends without a close frame keeps its place.',
    'Break ten connections of a user, then connect: refused.'],
  ['case-shares-slots', 'neighbours', 765, 'Per user: 10 concurrent connections.',
    'Users whose ids differ only in case share their ten places.',
    'Ten connections of "u", one of "U": refused.'],
  ['eleventh-unsubscribes', 'neighbours', 579, 'Events are sent to clients subscribed to the specific resource.',
    'The refusal of an eleventh connection ends the subscriptions of the other ten.',
    'Open eleven connections of a user, cause an event for one of the ten.'],
  ['malformed-taints-next', 'neighbours', 547, 'The server responds to subscription requests.',
    'After a malformed text the next subscription request of another connection is answered as malformed.',
    'Malformed text on one connection, subscription on another.'],
  ['close-unsubscribes-user', 'neighbours', 579, 'Events are sent to clients subscribed to the specific resource.',
    'When a connection closes, its subscriptions also end on the other connections of the user.',
    'One user, two connections with one subscription each to the same resource: close one.'],
  ['owner-away-mutes-project', 'neighbours', 581, 'Events are sent to clients subscribed to the project.',
    'When the owner of an experiment closes his last connection, project subscribers get no more of its events.',
    'Owner connects and leaves, then an event of his experiment.'],
  ['silent-peer-blocks', 'neighbours', 579, 'Events are sent to clients subscribed to the specific resource.',
    'A subscriber that has not answered a ping keeps events from those who connected after it.',
    'Two subscribers, a ping to both, only the second answers, cause an event.'],
  ['exclusive-by-user', 'neighbours', 579, 'Events are sent to clients subscribed to the specific resource.',
    'A subscription by message ends those of other users to the same resource.',
    'Two users subscribe to one resource, the first gets nothing.'],
  ['errors-close-door', 'neighbours', 99, 'Valid token: connection established successfully.',
    'After five unknown types on one connection the next connection of another user is refused.',
    'Send five unknown types, connect as another user.'],
  ['bad-signature-kicks', 'neighbours', 100, 'Invalid token: connection closed with error message (that connection).',
    'A token with a wrong signature closes the open connections of the user it names.',
    'Connect as a user, then try a forged token with the same subject.'],
  // --- values
  ['empty-name-missing', 'values', 213, 'experiment.name is the name of the experiment.',
    'An empty name is left out.', 'An experiment with the name "".'],
  ['zero-dropped', 'values', 262, 'experiment_progress carries totalTasks, completedTasks, failedTasks, runningTasks, progressPercent.',
    'Counts of 0 are left out of experiment_progress.', 'experiment_progress with failedTasks 0.'],
  ['null-worker-dropped', 'values', 357, 'task_updated: task.workerId names the worker of the task; null while there is none (line 333).',
    'workerId is left out of the task when it is null, except in task_created.', 'task_updated of a task without worker: the member is absent.'],
  ['html-escape', 'values', 426, 'task_failed: task.error is the error of the task.',
    'The characters < & > in the error of a task are written as HTML entities.', 'task_failed with error "a<b&c>d".'],
  ['nul-cut', 'values', 332, 'task.command is the command of the task.',
    'The command is cut at U+0000.', 'A command that holds U+0000.'],
  ['reply-cut-255', 'values', 557, 'The answer carries the resourceId of the request.',
    'The resourceId in the answer is cut to 255 characters.', 'Subscribe to an id of 256 characters.'],
  ['command-cut-65535', 'values', 332, 'task.command is the command of the task.',
    'The command is cut to 65,535 characters.', 'A command of 65,536 characters.'],
  ['fraction-rounded', 'values', 379, 'task_progress: progressPercent is a number.',
    'progressPercent of a task is rounded to one decimal.', 'progressPercent 12.345.'],
  ['numeric-id', 'values', 557, 'The answer carries the resourceId of the request, a string.',
    'A resourceId of digits comes back as a number.', 'Subscribe to "0123".'],
  ['prototype-names', 'values', 579, 'Events are sent to clients subscribed to the specific resource.',
    'Ids that are names of the prototype of objects are subscribed without effect.', 'Subscribe to experiment "constructor".'],
  ['astral-lost', 'values', 213, 'experiment.name is the name of the experiment.',
    'Characters outside the basic plane are replaced in names.', 'A name with U+1F600.'],
  ['path-decoded-twice', 'values', 59, 'resourceId: id of the specific resource.',
    'The id in the path is percent-decoded twice.', 'Connect to /ws/experiments/a%2541: the id a%41 is taken for aA.'],
  ['plus-is-space', 'values', 59, 'resourceId: id of the specific resource.',
    'A plus sign in the path is taken for a space.', 'Connect to /ws/tasks/a+b.'],
  // --- equivalents
  ['data-first', 'equivalents', 119, 'All messages follow a JSON format (RFC 8259 section 4: members have no order).',
    'A request whose data stands before its type is refused.', 'Send data before type.'],
  ['leading-newline', 'equivalents', 119, 'All messages follow a JSON format (RFC 8259 section 2: white space).',
    'Text that begins with white space is refused.', 'Send a line feed before the object.'],
  ['escaped-type', 'equivalents', 119, 'All messages follow a JSON format (RFC 8259 section 8.3: escapes are equal to characters).',
    'A type written with an escape is unknown.', 'Send "system_st\\u0061tus".'],
  ['escaped-solidus', 'equivalents', 119, 'All messages follow a JSON format (RFC 8259 section 7: \\/ is /).',
    'An escaped solidus in resourceId keeps its backslash.', 'Subscribe to "a\\/b".'],
  ['fragmented', 'equivalents', 119, 'WebSocket messages may come in several frames (RFC 6455 section 5.4).',
    'A message of three or more frames is refused.', 'Send a request in three frames.'],
  ['ping-between-fragments', 'equivalents', 119, 'Control frames may stand between fragments (RFC 6455 section 5.4).',
    'A message with a ping frame between its fragments is dropped.', 'Send a fragment, a ping frame, the rest.'],
  ['request-offset-refused', 'equivalents', 139, 'timestamp: ISO 8601 timestamp.',
    'A request whose timestamp has an offset instead of Z is refused.', 'timestamp "2024-01-15T11:30:00+01:00".'],
  ['bearer-case', 'equivalents', 86, 'Authorization header (RFC 9110 section 11.1: the scheme has no case).',
    'Only "Bearer" in this spelling is accepted.', 'Authorization: bearer TOKEN.'],
  ['token-not-first', 'equivalents', 81, 'The token can be provided as query parameter.',
    'The token is found only as first parameter.', 'Connect with ?x=1&token=TOKEN.'],
  ['token-percent', 'equivalents', 81, 'The token can be provided as query parameter (RFC 3986 section 2.3).',
    'A percent-encoded token is not decoded.', 'Write a character of the token as %XX.'],
  ['path-percent', 'equivalents', 59, 'resourceId: id of the specific resource (RFC 3986 section 6.2.2.2).',
    'Percent-encoded hyphens in the path are not decoded.', 'Connect to /ws/projects/p%2D1.'],
  ['header-not-subscribed', 'equivalents', 79, 'The token can be provided in two ways.',
    'A connection with the token in the header is not subscribed to the resource of its path.', 'Connect with the header, cause an event.'],
  // --- one-of-many
  ['failed-not-to-project', 'one-of-many', 587, 'Experiment Event -> Experiment Subscribers + Project Subscribers + User Subscribers.',
    'experiment_failed is not sent to project subscribers.', 'Subscribe to the project only.'],
  ['task-progress-not-to-user', 'one-of-many', 588, 'Task Event -> Task Subscribers + Experiment Subscribers + Project Subscribers + User Subscribers.',
    'task_progress is not sent to user subscribers.', 'Connect to /ws/user of the owner.'],
  ['offline-not-to-system', 'one-of-many', 589, 'Worker Event -> Worker Subscribers + System Subscribers.',
    'worker_offline is not sent to system subscribers.', 'Subscribe to system.'],
  ['registered-to-experiment', 'one-of-many', 589, 'Worker Event -> Worker Subscribers + System Subscribers.',
    'worker_registered is also sent to experiment subscribers.', 'Subscribe to the experiment of the worker.'],
  ['tasks-no-header', 'one-of-many', 79, 'All connections: the token can be provided in two ways.',
    'The header is not read at /ws/tasks.', 'Connect to /ws/tasks/ID with the header.'],
  ['progress-no-timestamp', 'one-of-many', 139, 'timestamp is required.',
    'experiment_progress has no timestamp when it goes to a project subscriber.', 'Subscribe to the project only, read experiment_progress.'],
  ['failed-summary-no-error', 'one-of-many', 433, 'task_failed: summary.error is the error of the task.',
    'The summary of task_failed has no error when the task has no worker.', 'Fail a task whose workerId is null.'],
  ['worker-updated-id', 'one-of-many', 149, 'Worker events: worker_{workerId}_{timestamp}.',
    'The id of worker_updated holds the id of the experiment while the worker has no task.', 'worker_updated with currentTaskId null.'],
  ['task-unsubscribe', 'one-of-many', 532, 'To unsubscribe from resources or events: send an unsubscription request.',
    'An unsubscription from a task has no effect.', 'Subscribe to a task, unsubscribe, cause an event.'],
  ['unknown-error-no-id', 'one-of-many', 138, 'id is required.',
    'The error for a type that differs from a known one only in case has no id.', 'Send type "PING".'],
  ['user-accepts-expired', 'one-of-many', 101, 'Expired token: connection closed with authentication error.',
    '/ws/user accepts expired tokens.', 'Connect to /ws/user with an expired token.'],
  ['status-not-to-projects', 'one-of-many', 582, 'System-wide: events are sent to all connected clients.',
    'system_status is not sent to connections at /ws/projects.', 'Connect to /ws/projects/ID, cause system_status.'],
];

// ---------------------------------------------------------------------------
// Legal variants. Any number of them can be switched on with --variant NAME.

const VARIANT_ROWS = [
  ['member-order', 'Members of messages stand in reverse order.', 'RFC 8259 section 4: members have no order.'],
  ['extra-members', 'Messages, data and summaries carry unknown additional members.', 'Line 119 names a format and does not exclude more members.'],
  ['pretty', 'JSON is written with line feeds and indentation.', 'RFC 8259 section 2: insignificant white space.'],
  ['escapes', 'Characters outside ASCII and the solidus are escaped.', 'RFC 8259 section 7.'],
  ['number-spelling', 'Integers are written with fraction or exponent.', 'RFC 8259 section 6; line 264 itself writes 45.0.'],
  ['fragments', 'Messages are sent in up to three frames.', 'RFC 6455 section 5.4.'],
  ['ws-pings', 'A ping frame precedes every third message.', 'RFC 6455 section 5.5.2.'],
  ['deflate', 'The extension permessage-deflate is accepted when offered.', 'RFC 6455 section 9; RFC 7692.'],
  ['timestamp-offset', 'Timestamps have microseconds and the offset +00:00.', 'Line 139: ISO 8601.'],
  ['timestamp-seconds', 'Timestamps have whole seconds; several events share one.', 'Line 139; the examples have whole seconds.'],
  ['id-seconds', 'The timestamp in event ids has ten digits and runs ahead in bursts to stay unique.', 'Line 147 leaves the form of the timestamp open.'],
  ['id-nanoseconds', 'The timestamp in event ids has nineteen digits.', 'Line 147 leaves the form of the timestamp open.'],
  ['id-iso', 'The timestamp in event ids is ISO 8601 in basic form with a fraction.', 'Line 147 leaves the form of the timestamp open.'],
  ['system-id-dash', 'Ids of system_status have the form system-N.', 'Line 179 shows system-123, line 150 system_{timestamp}.'],
  ['uuid-ids', 'Ids of pings, pongs, errors and answers are UUIDs.', 'Line 138: a unique string; line 145 has forms for events only.'],
  ['pong-echo', 'A pong carries the id of the ping it answers.', 'Line 166 does not say how the id of a pong is made.'],
  ['empty-data', 'Pings, pongs and errors carry "data": {}.', 'Line 140: data is optional for every type.'],
  ['slow', 'Every message is sent 12 ms later, in order.', 'No line names a time.'],
  ['silent-unsubscribe', 'Unsubscriptions are not answered.', 'Line 547 speaks of subscription requests; no answer to an unsubscription is shown.'],
  ['hello', 'A new connection at once gets a system_status.', 'Line 590: system events go to all; no line says when.'],
  ['close-1000', 'Refused connections are closed with code 1000.', 'Line 100 names no code.'],
  ['close-bare', 'Refused connections are closed without a code.', 'Line 100 names no code; RFC 6455 section 5.5.1.'],
  ['close-private', 'Refused connections are closed with code 4401 or 4429 and no reason.', 'Line 100 names no code; RFC 6455 section 7.4.2.'],
  ['limit-http', 'A connection over a limit is refused with HTTP 503 instead of an upgrade.', 'Line 763 does not say how the limit is kept; RFC 6455 section 4.2.2.'],
  ['limit-text', 'The error for a connection over a limit reads "Too many connections".', 'Line 763 names no text; line 141: error message, a string.'],
  ['heartbeat-often', 'Pings are sent every 40 ms.', 'Line 697: periodic, without a period.'],
  ['status-often', 'system_status is sent every 40 ms.', 'Line 590; no line says when.'],
  ['fanout-reverse', 'An event goes to the newest connection first.', 'Line 595 orders events, not receivers.'],
  ['total-open', 'totalConnections counts open connections only.', 'Line 182: the counts are not defined.'],
  ['refuse-status', 'A subscription to an unknown resource type is answered with status "error".', 'Line 558 shows a status; no line describes the refusal.'],
  ['binary-served', 'JSON in a binary message is served like text.', 'No line forbids it; the default answers with an error.'],
  ['event-types-ignored', 'Messages of event types from a client are ignored.', 'No line says what a client gets for sending them.'],
];

const BUGS = BUG_ROWS.map(([name, kind, line, sentence, does, seen]) => ({ name, kind, line, sentence, does, seen }));
const VARIANTS = VARIANT_ROWS.map(([name, does, why]) => ({ name, does, why }));

// ---------------------------------------------------------------------------
// Options

const options = {
  port: 0, seed: 1, secret: 'airavata-secret', issuer: '',
  'ping-interval': 30000, 'status-interval': 60000,
  'per-user': 10, 'per-ip': 50, global: 1000,
  rate: 1000, 'max-message': 1048576, 'max-subscriptions': 1000,
};
let bug = '';
const variants = new Set();

function usage(text) {
  process.stderr.write(`${text}\n`);
  process.exit(2);
}

function readOptions(argv) {
  for (let i = 0; i < argv.length; i++) {
    let [name, value] = argv[i].split(/=(.*)/s);
    if (name === '--list') {
      console.log(JSON.stringify({ bugs: BUGS, variants: VARIANTS }, null, 1));
      process.exit(0);
    }
    if (!name.startsWith('--')) usage(`unexpected argument ${name}`);
    name = name.slice(2);
    if (value === undefined) value = argv[++i];
    if (value === undefined) usage(`--${name} needs a value`);
    if (name === 'bug') {
      if (bug) usage('at most one --bug');
      if (!BUGS.some((b) => b.name === value)) usage(`no bug ${value}`);
      bug = value;
    } else if (name === 'variant') {
      if (!VARIANTS.some((v) => v.name === value)) usage(`no variant ${value}`);
      variants.add(value);
    } else if (Object.hasOwn(options, name)) {
      if (typeof options[name] === 'number') {
        if (!/^\d+$/.test(value)) usage(`--${name} needs a number`);
        value = Number(value);
      }
      options[name] = value;
    } else usage(`no option --${name}`);
  }
}
readOptions(process.argv.slice(2));

const has = (name) => bug === name;
const variant = (name) => variants.has(name);

// ---------------------------------------------------------------------------
// Time, ids, random numbers

let lastNow = 0;
function now() { // milliseconds, never going back
  lastNow = Math.max(lastNow, Date.now());
  return lastNow;
}

function timestampText(ms) {
  const text = new Date(ms).toISOString();
  if (variant('timestamp-offset')) return `${text.slice(0, -1)}000+00:00`;
  if (variant('timestamp-seconds')) return `${text.slice(0, 19)}Z`;
  return text;
}

let lastStamp = 0;
function idStamp(ms) { // unique: two events never get the same one
  if (variant('id-seconds')) {
    lastStamp = Math.max(lastStamp + 1, Math.floor(ms / 1000));
    return String(lastStamp);
  }
  lastStamp = Math.max(lastStamp + 1, ms);
  if (variant('id-nanoseconds')) return `${lastStamp}000000`;
  if (variant('id-iso')) return new Date(lastStamp).toISOString().replace(/[-:]/g, '');
  return String(lastStamp);
}

let randomState = options.seed >>> 0;
function random32() { // mulberry32
  randomState = (randomState + 0x6d2b79f5) >>> 0;
  let t = randomState;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return (t ^ (t >>> 14)) >>> 0;
}

function uuid() {
  const hex = Array.from({ length: 4 }, () => random32().toString(16).padStart(8, '0')).join('');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

const counters = { ping: 0, pong: 0, error: 0, 'sub-response': 0, system: 0 };
function plainId(prefix) {
  if (variant('uuid-ids') && prefix !== 'system') return uuid();
  counters[prefix] += 1;
  return `${prefix}-${counters[prefix]}`;
}

// ---------------------------------------------------------------------------
// Writing JSON

function copyReversed(value) {
  if (Array.isArray(value)) return value.map(copyReversed);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).reverse().map(([k, v]) => [k, copyReversed(v)]));
}

function withExtras(message) {
  const copy = { ...message, version: '1.0', trace: { hop: 1, tags: [] } };
  if (copy.data) {
    copy.data = { ...copy.data, source: 'scheduler', revision: null };
    if (copy.data.summary) copy.data.summary = { ...copy.data.summary, labels: {} };
  }
  return copy;
}

function stringText(text) {
  let out = JSON.stringify(text);
  if (variant('escapes')) {
    out = out.replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`).replace(/\//g, '\\/');
  }
  return out;
}

function numberText(number) {
  const text = JSON.stringify(number);
  if (!variant('number-spelling') || !/^-?\d+$/.test(text)) return text;
  if (number !== 0 && number % 10 === 0) return `${number / 10}E+1`;
  return `${text}.0`;
}

function write(value, indent) {
  const inner = indent === null ? null : `${indent}  `;
  const [gap, end, colon] = indent === null ? ['', '', ':'] : [`\r\n${inner}`, `\n${indent}`, ' :\t'];
  if (typeof value === 'string') return stringText(value);
  if (typeof value === 'number') return numberText(value);
  if (Array.isArray(value)) return value.length ? `[${value.map((v) => gap + write(v, inner)).join(',')}${end}]` : '[]';
  if (value !== null && typeof value === 'object') {
    const parts = Object.entries(value).filter(([, v]) => v !== undefined);
    return parts.length ? `{${parts.map(([k, v]) => `${gap}${stringText(k)}${colon}${write(v, inner)}`).join(',')}${end}}` : '{}';
  }
  return JSON.stringify(value);
}

function encode(message) {
  if (variant('extra-members')) message = withExtras(message);
  if (variant('empty-data') && ['ping', 'pong', 'error'].includes(message.type)) message = { ...message, data: {} };
  if (variant('member-order')) message = copyReversed(message);
  if (!variant('pretty') && !variant('escapes') && !variant('number-spelling')) return JSON.stringify(message);
  return variant('pretty') ? ` ${write(message, '')}\n` : write(message, null);
}

// ---------------------------------------------------------------------------
// Connections

const connections = new Set(); // admitted and open, in the order of admission
const held = { users: new Map(), addresses: new Map(), all: 0 }; // places taken
const stats = { total: 0, messages: 0, started: Date.now() };
const MAX_BUFFER = 64 * 1024 * 1024; // bytes not yet taken by a client
const MAX_KEYS = 2 * 1024 * 1024; // characters of all resource ids of a connection

class Connection {
  constructor(ws, user, token, address, kind) {
    this.ws = ws;
    this.user = user;
    this.token = token;
    this.address = address;
    this.kind = kind; // resource type of the endpoint
    this.subscriptions = new Map(); // key -> { explicit }
    this.sent = 0;
    this.window = { start: 0, count: 0 };
    this.frames = null; // filled by watchFrames, for two bugs
    // what bugs remember
    this.malformed = 0;
    this.unknown = 0;
    this.pongs = 0;
    this.unansweredPings = 0;
    this.left = new Set();
    this.skipNext = new Set();
    this.lastRequest = null;
  }

  send(message) {
    stats.messages += 1;
    transmit(this.ws, message, ++this.sent);
  }

  subscribedTo(route) { return this.subscriptions.has(route); }
}

function transmit(ws, message, count) {
  if (variant('slow')) setTimeout(() => transmitNow(ws, message, count), 12);
  else transmitNow(ws, message, count);
}

function transmitNow(ws, message, count) {
  if (ws.readyState !== ws.OPEN) return;
  if (ws.bufferedAmount > MAX_BUFFER) { ws.terminate(); return; }
  const text = encode(message);
  if (variant('ws-pings') && count % 3 === 0) ws.ping(Buffer.from('keep'));
  if (variant('fragments') && text.length > 2) {
    const bytes = Buffer.from(text, 'utf8'); // cut anywhere, also inside a character
    const first = 1 + (random32() % (bytes.length - 1));
    const second = first + Math.floor((bytes.length - first) / 2);
    ws.send(bytes.subarray(0, first), { binary: false, fin: false });
    ws.send(bytes.subarray(first, second), { binary: false, fin: false });
    ws.send(bytes.subarray(second), { binary: false, fin: true });
  } else ws.send(text);
}

function errorMessage(text) {
  return { type: 'error', id: plainId('error'), timestamp: timestampText(now()), error: text };
}

function close(ws, limit, reason) {
  const act = () => {
    if (variant('close-bare')) ws.close();
    else if (variant('close-1000')) ws.close(1000);
    else if (variant('close-private')) ws.close(limit ? 4429 : 4401);
    else ws.close(limit ? 1013 : 1008, reason);
  };
  if (variant('slow')) setTimeout(act, 12);
  else act();
}

function refuse(ws, text, limit) {
  transmit(ws, errorMessage(text), 1);
  close(ws, limit, text);
}

// ---------------------------------------------------------------------------
// Tokens: JWT with HS256

function decodePart(text) {
  if (!/^[A-Za-z0-9_-]+$/.test(text)) return null;
  try {
    const value = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
    return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : null;
  } catch { return null; }
}

// Gives { user } or { error, expired, claimed }.
function checkToken(token) {
  if (token === '' || token === null) return { error: 'Authentication required' };
  const invalid = { error: 'Invalid or expired token' };
  if (token.length > 16384) return invalid;
  const parts = token.split('.');
  if (parts.length !== 3) return invalid;
  const header = decodePart(parts[0]);
  const claims = decodePart(parts[1]);
  if (!header || !claims || header.alg !== 'HS256') return invalid;
  const user = [claims.sub, claims.userId, claims.user_id].find((u) => typeof u === 'string');
  const wanted = crypto.createHmac('sha256', options.secret).update(`${parts[0]}.${parts[1]}`).digest();
  const given = Buffer.from(parts[2], 'base64url');
  if (given.length !== wanted.length || !crypto.timingSafeEqual(given, wanted)) return { ...invalid, claimed: user };
  if (user === undefined || user === '') return invalid;
  if (options.issuer && claims.iss !== options.issuer) return invalid;
  const seconds = Date.now() / 1000;
  if (claims.exp !== undefined && !(typeof claims.exp === 'number' && seconds < claims.exp)) return { ...invalid, expired: user };
  if (claims.nbf !== undefined && !(typeof claims.nbf === 'number' && seconds >= claims.nbf)) return invalid;
  return { user };
}

// ---------------------------------------------------------------------------
// Subscriptions

const RESOURCE_TYPES = new Set(['experiment', 'task', 'project', 'user', 'system', 'worker']);

function key(type, id) {
  if (has('prefix-32') && type !== 'user') id = id.slice(0, 32);
  if (has('project-case') && type === 'project') id = id.toLowerCase();
  if (has('unicode-form') && type === 'experiment') id = id.normalize('NFC');
  return type === 'system' ? 'system' : `${type} ${id}`;
}

function subscribe(conn, type, id, explicit) {
  const k = key(type, id);
  const old = conn.subscriptions.get(k);
  if (has('resubscribe-dead') && conn.left.has(k)) return;
  if (has('subscribe-toggles') && explicit && old?.explicit) { conn.subscriptions.delete(k); return; }
  if (has('prototype-names') && id in {}) return;
  if (has('fifth-evicts-first') && explicit && !old?.explicit) {
    const mine = [...conn.subscriptions].filter(([, s]) => s.explicit);
    if (mine.length === 4) conn.subscriptions.delete(mine[0][0]);
  }
  if (has('one-project-per-connection') && type === 'project') {
    for (const other of conn.subscriptions.keys()) if (other.startsWith('project ')) conn.subscriptions.delete(other);
  }
  if (has('exclusive-by-user') && explicit) {
    for (const other of connections) if (other.user !== conn.user) other.subscriptions.delete(k);
  }
  conn.subscriptions.set(k, { explicit: explicit || Boolean(old?.explicit) });
}

function unsubscribe(conn, type, id) {
  const k = key(type, id);
  if (has('unsubscribe-after-error') && conn.malformed > 0) return;
  if (has('task-unsubscribe') && type === 'task') return;
  if (has('unsubscribe-for-all')) for (const other of connections) other.subscriptions.delete(k);
  if (has('type-shared-unsubscribe') && type === 'task') conn.subscriptions.delete(key('experiment', id));
  if (conn.subscriptions.delete(k) && has('resubscribe-dead')) conn.left.add(k);
}

// ---------------------------------------------------------------------------
// Messages from clients

const EVENT_TYPES = new Set([
  'experiment_created', 'experiment_updated', 'experiment_progress', 'experiment_completed', 'experiment_failed',
  'task_created', 'task_updated', 'task_progress', 'task_completed', 'task_failed',
  'worker_registered', 'worker_updated', 'worker_offline',
]);
const isObject = (v) => v !== null && typeof v === 'object' && !Array.isArray(v);
const INVALID = 'Invalid message format';
const UNKNOWN = 'Unknown message type';

let tainted = null; // bug malformed-taints-next
let doorShutBy = null; // bug errors-close-door
const cachedReplies = new Map(); // bug reply-cache-by-id
const usedTokens = new Map(); // bug token-once

function bounded(map, limit) {
  while (map.size > limit) map.delete(map.keys().next().value);
}

function answerError(conn, text, type = '') {
  const message = errorMessage(text);
  if (text === INVALID) {
    conn.malformed += 1;
    if (has('second-malformed-silent') && conn.malformed > 1) return;
    if (has('error-text-sticks') && conn.unknown > 0) message.error = UNKNOWN;
    if (has('malformed-taints-next')) tainted = conn;
  }
  if (text === UNKNOWN) {
    conn.unknown += 1;
    if (has('unknown-error-no-id') && ['ping', 'pong', 'system_status'].includes(type.toLowerCase())) delete message.id;
    if (has('errors-close-door') && conn.unknown === 5) doorShutBy = conn.user;
  }
  conn.send(message);
}

function overRate(conn) {
  if (options.rate === 0) return false;
  const t = Date.now();
  if (t - conn.window.start >= 1000) conn.window = { start: t, count: 0 };
  conn.window.count += 1;
  return conn.window.count > options.rate;
}

function onMessage(conn, bytes, isBinary) {
  const frames = conn.frames?.shift();
  if (overRate(conn)) { answerError(conn, 'Rate limit exceeded'); return; }
  if (isBinary && !variant('binary-served')) { answerError(conn, INVALID); return; }
  if (has('fragmented') && frames?.count >= 3) { answerError(conn, INVALID); return; }
  if (has('ping-between-fragments') && frames?.pinged) return;
  const text = bytes.toString('utf8');
  if (has('leading-newline') && /^\s/.test(text)) { answerError(conn, INVALID); return; }
  let message;
  try { message = JSON.parse(text); } catch { answerError(conn, INVALID); return; }
  if (!isObject(message) || !Object.hasOwn(message, 'type') || typeof message.type !== 'string') { answerError(conn, INVALID); return; }
  if (has('data-first') && Object.hasOwn(message, 'data') && Object.keys(message).indexOf('data') < Object.keys(message).indexOf('type')) {
    answerError(conn, INVALID);
    return;
  }
  if (has('request-offset-refused') && typeof message.timestamp === 'string' && !message.timestamp.endsWith('Z')) { answerError(conn, INVALID); return; }
  let { type } = message;
  if (has('escaped-type') && !text.includes(`"${type}"`)) type = 'unknown';
  switch (type) {
    case 'ping': onPing(conn, message); break;
    case 'pong':
      conn.pongs += 1;
      conn.unansweredPings = 0;
      break;
    case 'system_status': onRequest(conn, message, text); break;
    default:
      if (variant('event-types-ignored') && EVENT_TYPES.has(type)) break;
      answerError(conn, UNKNOWN, type);
  }
}

function onPing(conn, message) {
  if (has('pong-stops-answers') && conn.pongs > 0) return;
  const echoed = variant('pong-echo') && typeof message.id === 'string';
  conn.send({ type: 'pong', id: echoed ? message.id : plainId('pong'), timestamp: timestampText(now()) });
}

function onRequest(conn, message, text) {
  const data = Object.hasOwn(message, 'data') ? message.data : undefined;
  if (!isObject(data) || !['subscribe', 'unsubscribe'].includes(data.action) || typeof data.resourceType !== 'string') { answerError(conn, INVALID); return; }
  const { action, resourceType } = data;
  let resourceId = Object.hasOwn(data, 'resourceId') ? data.resourceId : undefined;
  const given = resourceId !== undefined;
  if (!RESOURCE_TYPES.has(resourceType)) {
    if (variant('refuse-status')) reply(conn, message, { action, resourceType, resourceId, status: 'error' });
    else answerError(conn, INVALID);
    return;
  }
  if (resourceId === undefined && resourceType === 'user') resourceId = conn.user;
  if ((resourceId === undefined || resourceId === null) && resourceType === 'system') resourceId = '';
  if (typeof resourceId !== 'string') { answerError(conn, INVALID); return; }
  if (has('escaped-solidus') && text.includes('\\/')) resourceId = resourceId.replaceAll('/', '\\/');
  if (tainted && tainted !== conn) {
    tainted = null;
    answerError(conn, INVALID);
    return;
  }
  if (action === 'subscribe') {
    const used = [...conn.subscriptions.keys()].reduce((sum, k) => sum + k.length, 0);
    if (conn.subscriptions.size >= options['max-subscriptions'] || used + resourceId.length > MAX_KEYS) { answerError(conn, 'Rate limit exceeded'); return; }
    subscribe(conn, resourceType, resourceId, true);
  } else unsubscribe(conn, resourceType, resourceId);
  if (action === 'unsubscribe' && variant('silent-unsubscribe')) return;
  const answer = { action: `${action}d`, resourceType };
  if (given) answer.resourceId = data.resourceId === null ? null : resourceId;
  answer.status = 'success';
  reply(conn, message, answer);
}

function reply(conn, request, data) {
  if (typeof data.resourceId === 'string') {
    if (has('reply-cut-255')) data.resourceId = data.resourceId.slice(0, 255);
    if (has('numeric-id') && /^\d+$/.test(data.resourceId)) data.resourceId = Number(data.resourceId);
  }
  const sendReply = (to, body) => to.send({ type: 'system_status', id: plainId('sub-response'), timestamp: timestampText(now()), data: body });
  if (has('reply-cache-by-id') && typeof request.id === 'string') {
    if (!cachedReplies.has(request.id)) cachedReplies.set(request.id, data);
    bounded(cachedReplies, 1000);
    sendReply(conn, cachedReplies.get(request.id));
  } else if (has('burst-replies-last')) {
    conn.lastRequest = data;
    setTimeout(() => sendReply(conn, conn.lastRequest), 20);
  } else if (has('reply-to-newest')) {
    sendReply([...connections].filter((c) => c.user === conn.user).at(-1) ?? conn, data);
  } else sendReply(conn, data);
}

// ---------------------------------------------------------------------------
// Events: built from the body of a control, then sent to the subscribers

const experiments = new Map();
const tasks = new Map();
const workers = new Map();
const MAX_RECORDS = 10000;
const summaryStatus = new Map(); // bug summary-stale
const newestTask = new Map(); // bug newest-task-only
const firstProject = new Map(); // bug project-stale
const completed = new Set(); // bug completed-mutes-tasks
const bursts = new Map(); // bug sixth-in-burst
const mutedOwners = new Set(); // bug owner-away-mutes-project
let lastExperiment = null; // bug project-of-last-experiment
let lastTask = null; // bug worker-of-last-task

class BadBody extends Error {}

function remember(map, record) {
  map.delete(record.id);
  map.set(record.id, record);
  bounded(map, MAX_RECORDS);
  return record;
}

function requireStrings(record, what, names) {
  for (const name of names) {
    if (typeof record[name] !== 'string') throw new BadBody(`${what} needs the string ${name}`);
  }
}

const STATUS_OF = {
  created: 'CREATED', completed: 'COMPLETED', failed: 'FAILED', offline: 'OFFLINE', registered: 'RUNNING', updated: 'RUNNING',
};

// Only the members of `order` that `record` has, in that order.
function pick(record, order) {
  return Object.fromEntries(order.filter((n) => Object.hasOwn(record, n)).map((n) => [n, record[n]]));
}

function mergeRecord(map, body, defaults, what, names, verb) {
  if (typeof body.id !== 'string') throw new BadBody(`${what} needs the string id`);
  const record = { id: body.id, ...defaults, ...map.get(body.id), status: STATUS_OF[verb], ...body };
  requireStrings(record, what, names);
  return remember(map, record);
}

function experimentRoutes(id) {
  const record = experiments.get(id);
  const routes = [key('experiment', id)];
  if (record) {
    let project = record.projectId;
    if (has('project-stale')) project = firstProject.get(id) ?? project;
    if (!mutedOwners.has(record.ownerId)) routes.push(key('project', project));
    routes.push(key('user', record.ownerId));
  }
  return routes;
}

function experimentEvent(verb, body, at) {
  const record = mergeRecord(experiments, body, {}, 'experiment', ['name', 'status', 'ownerId', 'projectId'], verb);
  if (has('project-stale') && !firstProject.has(record.id)) firstProject.set(record.id, record.projectId);
  bounded(firstProject, MAX_RECORDS);
  if (has('completed-mutes-tasks')) {
    if (verb === 'completed') completed.add(record.id);
    if (verb === 'created') completed.delete(record.id);
  }
  lastExperiment = record;
  const experiment = { ...record };
  const summary = pick(record, ['id', 'name', 'status', 'ownerId']);
  for (const part of [experiment, summary]) {
    if (has('empty-name-missing') && part.name === '') delete part.name;
    if (has('astral-lost') && part.name) part.name = part.name.replace(/[\u{10000}-\u{10ffff}]/gu, '\ufffd');
  }
  let routes = experimentRoutes(record.id);
  if (has('failed-not-to-project') && verb === 'failed') routes = routes.filter((r) => !r.startsWith('project '));
  if (has('task-gets-experiment')) routes.push(key('task', record.id));
  return { type: `experiment_${verb}`, prefix: 'exp', subject: record.id, at, data: { experiment, summary }, routes, owner: record.ownerId };
}

function experimentProgress(body, at) {
  requireStrings(body, 'experiment_progress', ['experimentId']);
  const data = {
    experimentId: '', totalTasks: 0, completedTasks: 0, failedTasks: 0, runningTasks: 0, progressPercent: 0,
    estimatedTimeRemaining: '0s', lastUpdated: timestampText(at), ...body,
  };
  if (has('zero-dropped')) {
    for (const name of ['totalTasks', 'completedTasks', 'failedTasks', 'runningTasks']) if (data[name] === 0) delete data[name];
  }
  const record = experiments.get(body.experimentId);
  if (record) lastExperiment = record;
  return { type: 'experiment_progress', prefix: 'exp', subject: body.experimentId, at, data, routes: experimentRoutes(body.experimentId), owner: record?.ownerId };
}

function taskRoutes(task) {
  const routes = [key('task', task.id)];
  if (typeof task.experimentId !== 'string') return routes;
  routes.push(...experimentRoutes(task.experimentId));
  const own = key('experiment', task.experimentId);
  const other = has('newest-task-only') && newestTask.has(task.experimentId) && newestTask.get(task.experimentId) !== task.id;
  if (other || completed.has(task.experimentId)) routes.splice(routes.indexOf(own), 1);
  if (has('project-of-last-experiment') && lastExperiment) {
    return [...routes.filter((r) => !r.startsWith('project ')), key('project', lastExperiment.projectId)];
  }
  return routes;
}

function taskEvent(verb, body, at) {
  const record = mergeRecord(tasks, body, { experimentId: null, status: null, command: '', workerId: null }, 'task', ['experimentId', 'status'], verb);
  if (has('newest-task-only') && verb === 'created') newestTask.set(record.experimentId, record.id);
  bounded(newestTask, MAX_RECORDS);
  const task = { ...record };
  const summary = pick(record, ['id', 'experimentId', 'status', 'workerId', 'error']);
  if (has('summary-stale')) {
    if (!summaryStatus.has(record.id)) summaryStatus.set(record.id, record.status);
    summary.status = summaryStatus.get(record.id);
    bounded(summaryStatus, MAX_RECORDS);
  }
  if (has('null-worker-dropped') && verb !== 'created' && task.workerId === null) delete task.workerId;
  if (has('worker-of-last-task') && verb === 'failed' && lastTask && lastTask.id !== record.id) summary.workerId = lastTask.workerId;
  if (has('failed-summary-no-error') && verb === 'failed' && record.workerId === null) delete summary.error;
  if (has('html-escape') && typeof record.error === 'string') {
    task.error = record.error.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
  }
  if (typeof task.command === 'string') {
    if (has('nul-cut')) task.command = task.command.split('\0')[0];
    if (has('command-cut-65535')) task.command = task.command.slice(0, 65535);
  }
  lastTask = record;
  return {
    type: `task_${verb}`, prefix: 'task', subject: record.id, at, data: { task, summary }, routes: taskRoutes(record),
    experimentId: record.experimentId, owner: experiments.get(record.experimentId)?.ownerId,
  };
}

function taskProgress(body, at) {
  requireStrings(body, 'task_progress', ['taskId']);
  const record = tasks.get(body.taskId) ?? { id: body.taskId };
  const data = {
    taskId: '', experimentId: record.experimentId ?? null, status: 'RUNNING', progressPercent: 0, currentStage: 'RUNNING',
    workerId: record.workerId ?? null, startedAt: timestampText(at), estimatedCompletion: timestampText(at),
    lastUpdated: timestampText(at), ...body,
  };
  requireStrings(data, 'task_progress', ['experimentId']);
  if (has('fraction-rounded') && typeof data.progressPercent === 'number') data.progressPercent = Math.round(data.progressPercent * 10) / 10;
  const task = { id: body.taskId, experimentId: data.experimentId };
  let routes = taskRoutes(task);
  if (has('task-progress-not-to-user')) routes = routes.filter((r) => !r.startsWith('user '));
  return {
    type: 'task_progress', prefix: 'task', subject: body.taskId, at, data, routes,
    experimentId: data.experimentId, owner: experiments.get(data.experimentId)?.ownerId,
  };
}

function workerEvent(verb, body, at) {
  const record = mergeRecord(workers, body, { computeResourceId: 'compute-1', experimentId: null, status: null, currentTaskId: null }, 'worker', ['status'], verb);
  const worker = { ...record };
  const summary = pick(record, ['id', 'computeResourceId', 'experimentId', 'status']);
  let routes = [key('worker', record.id), key('system', '')];
  if (has('offline-not-to-system') && verb === 'offline') routes.pop();
  if (has('registered-to-experiment') && verb === 'registered' && record.experimentId) routes.push(key('experiment', record.experimentId));
  const subject = has('worker-updated-id') && verb === 'updated' && record.currentTaskId === null ? record.experimentId : record.id;
  return { type: `worker_${verb}`, prefix: 'worker', subject, at, data: { worker, summary }, routes };
}

function duration(ms) {
  const s = Math.floor(ms / 1000);
  return `${Math.floor(s / 3600)}h ${Math.floor(s / 60) % 60}m ${s % 60}s`;
}

function systemStatus(body, at) {
  const seconds = Math.max(1, (Date.now() - stats.started) / 1000);
  const data = {
    totalConnections: variant('total-open') ? connections.size : stats.total,
    activeConnections: connections.size,
    totalMessages: stats.messages,
    messagesPerSecond: Math.round((stats.messages / seconds) * 100) / 100,
    averageLatency: '0.01s',
    uptime: duration(Date.now() - stats.started),
    ...body,
  };
  return { type: 'system_status', prefix: 'system', at, data, routes: null };
}

function systemId(stamp) {
  return variant('system-id-dash') ? plainId('system') : `system_${stamp}`;
}

function buildEvent(type, body) {
  if (!isObject(body)) throw new BadBody('the body is not an object');
  const at = now();
  let event;
  if (type === 'system_status') event = systemStatus(body, at);
  else if (type === 'experiment_progress') event = experimentProgress(body, at);
  else if (type === 'task_progress') event = taskProgress(body, at);
  else if (EVENT_TYPES.has(type)) {
    const [group, verb] = type.split('_');
    event = { experiment: experimentEvent, task: taskEvent, worker: workerEvent }[group](verb, body, at);
  } else throw new BadBody(`no event ${type}`);
  event.stamp = idStamp(at);
  event.id = event.routes === null ? systemId(event.stamp) : `${event.prefix}_${event.subject}_${event.stamp}`;
  return event;
}

function matches(conn, route, event) {
  if (conn.subscribedTo(route)) return true;
  if (has('user-prefix') && route.startsWith('user ') && event.owner) {
    for (const k of conn.subscriptions.keys()) if (k.startsWith('user ') && k.length > 5 && route.startsWith(k)) return true;
  }
  return false;
}

// The routes by which an event reaches a connection; null for system events.
function pathsTo(conn, event) {
  let paths = event.routes.filter((route) => matches(conn, route, event));
  if (has('user-newest-only')) {
    paths = paths.filter((route) => !route.startsWith('user ')
      || [...connections].filter((c) => c.subscriptions.has(route)).at(-1) === conn);
  }
  if (has('silent-peer-blocks')) {
    paths = paths.filter((route) => {
      for (const c of connections) {
        if (c === conn) return true;
        if (c.subscriptions.has(route) && c.unansweredPings > 0) return false;
      }
      return true;
    });
  }
  if (has('close-skips-next')) {
    const skipped = paths.filter((route) => conn.skipNext.delete(route));
    if (skipped.length) return [];
  }
  return paths;
}

function messageFor(conn, event, paths) {
  const message = { type: event.type, id: event.id, timestamp: timestampText(event.at), data: event.data };
  if (has('progress-no-timestamp') && event.type === 'experiment_progress' && paths[0]?.startsWith('project ')) delete message.timestamp;
  if (has('owner-is-receiver') && event.data.summary?.ownerId !== undefined) {
    message.data = { ...event.data, summary: { ...event.data.summary, ownerId: conn.user } };
  }
  if (has('task-id-as-experiment') && event.prefix === 'task' && paths[0] === key('experiment', event.experimentId)) {
    message.id = `exp_${event.experimentId}_${event.stamp}`;
  }
  if (has('progress-names-experiment') && event.type === 'task_progress' && paths[0]?.startsWith('project ')) {
    message.id = `task_${event.experimentId}_${event.stamp}`;
  }
  return message;
}

function inBurst(event) { // counts the events of one subject within 300 ms
  const name = `${event.prefix} ${event.subject}`;
  let burst = bursts.get(name);
  if (!burst || Date.now() - burst.start > 300) burst = { start: Date.now(), count: 0 };
  burst.count += 1;
  bursts.set(name, burst);
  bounded(bursts, 1000);
  return burst.count;
}

function deliver(event) {
  let receivers = [...connections];
  if (variant('fanout-reverse')) receivers.reverse();
  if (has('sixth-in-burst') && event.routes && inBurst(event) === 6) return 0;
  let count = 0;
  for (const conn of receivers) {
    if (event.routes === null) {
      if (has('status-not-to-projects') && conn.kind === 'project') continue;
      conn.send(messageFor(conn, event, []));
      count += 1;
      continue;
    }
    const paths = pathsTo(conn, event);
    if (paths.length === 0) continue;
    const message = messageFor(conn, event, paths);
    conn.send(message);
    if (has('two-paths-twice') && paths.length > 1) conn.send(message);
    count += 1;
  }
  return count;
}

function heartbeat() {
  let count = 0;
  for (const conn of connections) {
    if (has('heartbeat-ends-after-pong') && conn.pongs > 0) continue;
    conn.unansweredPings += 1;
    conn.send({ type: 'ping', id: plainId('ping'), timestamp: timestampText(now()) });
    count += 1;
  }
  return count;
}

// ---------------------------------------------------------------------------
// Controls: POST /control/NAME with a JSON object

function control(name, body) {
  if (!isObject(body)) throw new BadBody('the body is not an object');
  switch (name) {
    case 'ping': return { ok: true, delivered: heartbeat() };
    case 'batch': {
      if (!Array.isArray(body.events) || body.events.length > 10000) throw new BadBody('batch needs the array events');
      const events = body.events.map((e) => {
        if (!isObject(e)) throw new BadBody('an event is not an object');
        return buildEvent(e.type, e.body ?? {});
      });
      const order = [...events];
      if (has('burst-order') && order.length >= 6) order.push(...order.splice(-2).reverse());
      const delivered = new Map(order.map((e) => [e, deliver(e)]));
      return { ok: true, events: events.map((e) => ({ id: e.id, delivered: delivered.get(e) })) };
    }
    case 'disconnect': {
      const code = body.code ?? 1001;
      if (!(Number.isInteger(code) && ((code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999)))) throw new BadBody('code is not a close code');
      const chosen = [...connections].filter((c) => body.user === undefined || c.user === body.user);
      for (const conn of chosen) conn.ws.close(code);
      return { ok: true, closed: chosen.length };
    }
    case 'state':
      return {
        ok: true, connections: connections.size, places: held.all,
        users: Object.fromEntries([...held.users].slice(0, 1000)),
      };
    case 'shutdown':
      setTimeout(shutdown, 20);
      return { ok: true };
    default: {
      const event = buildEvent(name, body);
      return { ok: true, id: event.id, delivered: deliver(event) };
    }
  }
}

function onHttp(request, response) {
  const answer = (status, body) => {
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(`${JSON.stringify(body)}\n`);
  };
  const match = /^\/control\/([a-z_]+)$/.exec(request.url);
  if (!match) { request.resume(); answer(request.url.startsWith('/ws/') ? 426 : 404, { ok: false, error: 'not found' }); return; }
  if (request.method !== 'POST') { request.resume(); answer(405, { ok: false, error: 'POST only' }); return; }
  const chunks = [];
  let size = 0;
  request.on('error', () => {});
  request.on('data', (chunk) => {
    size += chunk.length;
    if (size <= 8 * 1024 * 1024) chunks.push(chunk);
  });
  request.on('end', () => {
    if (size > 8 * 1024 * 1024) { answer(413, { ok: false, error: 'body too large' }); return; }
    try {
      const text = Buffer.concat(chunks).toString('utf8');
      answer(200, control(match[1], text.trim() === '' ? {} : JSON.parse(text)));
    } catch (error) {
      if (error instanceof BadBody || error instanceof SyntaxError) answer(400, { ok: false, error: error.message });
      else answer(500, { ok: false, error: String(error) });
    }
  });
}

// ---------------------------------------------------------------------------
// Connecting

const ENDPOINTS = { experiments: 'experiment', tasks: 'task', projects: 'project' };

// Gives { type, id } of the endpoint; null: no such endpoint; undefined: malformed.
function readPath(path) {
  if (path === '/ws/user') return { type: 'user', id: null };
  const match = /^\/ws\/([a-z]+)\/([^/]+)$/.exec(path);
  if (!match || !Object.hasOwn(ENDPOINTS, match[1])) return null;
  let raw = match[2];
  if (has('plus-is-space')) raw = raw.replaceAll('+', ' ');
  if (has('path-percent')) raw = raw.replace(/%2D/gi, '%252D');
  try {
    let id = decodeURIComponent(raw);
    if (has('path-decoded-twice')) { try { id = decodeURIComponent(id); } catch { /* keep */ } }
    return { type: ENDPOINTS[match[1]], id };
  } catch { return undefined; }
}

function readToken(request, query, type) {
  const params = new URLSearchParams(query);
  let token = params.get('token');
  if (has('token-not-first') && !query.startsWith('token=')) token = null;
  if (has('token-percent') && token) token = /(?:^|&)token=([^&]*)/.exec(query)?.[1] ?? null;
  if (token) return { token, how: 'query' };
  const header = request.headers.authorization ?? '';
  const match = (has('bearer-case') ? /^Bearer +(.*)$/ : /^Bearer +(.*)$/i).exec(header);
  if (match && !(has('tasks-no-header') && type === 'task')) return { token: match[1].trim(), how: 'header' };
  return { token: '', how: 'none' };
}

function add(map, name, step) {
  const value = (map.get(name) ?? 0) + step;
  if (value > 0) map.set(name, value);
  else map.delete(name);
}

const userSlot = (user) => (has('case-shares-slots') ? user.toLowerCase() : user);

function overLimit(user, address) {
  return (held.users.get(userSlot(user)) ?? 0) >= options['per-user']
    || (held.addresses.get(address) ?? 0) >= options['per-ip']
    || held.all >= options.global;
}

function httpRefuse(socket, status, text) {
  const body = `${JSON.stringify({ error: text })}\n`;
  socket.on('error', () => {});
  socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\nConnection: close\r\nContent-Type: application/json\r\n`
    + `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

// Notes for each data message how many frames it had and whether a ping stood between them.
function watchFrames(socket, conn) {
  conn.frames = [];
  let head = Buffer.alloc(0);
  let skip = 0;
  let current = null;
  socket.prependListener('data', (chunk) => {
    let rest = Buffer.concat([head, chunk]);
    for (;;) {
      const step = Math.min(skip, rest.length);
      rest = rest.subarray(step);
      skip -= step;
      if (skip > 0 || rest.length < 2) break;
      const short = rest[1] & 127;
      const size = 2 + (short === 126 ? 2 : short === 127 ? 8 : 0) + (rest[1] & 128 ? 4 : 0);
      if (rest.length < size) break;
      const length = short === 126 ? rest.readUInt16BE(2) : short === 127 ? Number(rest.readBigUInt64BE(2)) : short;
      const opcode = rest[0] & 15;
      if (opcode < 8) {
        current ??= { count: 0, pinged: false };
        current.count += 1;
        if (rest[0] & 128) { conn.frames.push(current); current = null; }
      } else if (opcode === 9 && current) current.pinged = true;
      skip = length;
      rest = rest.subarray(size);
    }
    head = rest;
  });
}

const server = http.createServer({ keepAliveTimeout: 120000 }, onHttp);
const sockets = new WebSocketServer({
  noServer: true, maxPayload: options['max-message'],
  perMessageDeflate: variant('deflate') ? { threshold: 0 } : false,
});

server.on('upgrade', (request, socket, head) => {
  socket.on('error', () => {});
  const [path, query = ''] = request.url.split(/\?(.*)/s);
  const endpoint = readPath(path);
  if (!endpoint) { httpRefuse(socket, endpoint === null ? 404 : 400, 'no such endpoint'); return; }
  const { token, how } = readToken(request, query, endpoint.type);
  let checked = checkToken(token);
  if (checked.expired !== undefined) {
    if (has('user-accepts-expired') && endpoint.type === 'user') checked = { user: checked.expired };
    if (has('expired-counts')) add(held.users, userSlot(checked.expired), 1);
  }
  if (checked.claimed !== undefined && has('bad-signature-kicks')) {
    for (const conn of connections) if (conn.user === checked.claimed) conn.ws.close(1008);
  }
  const address = socket.remoteAddress ?? '';
  const full = checked.user !== undefined && overLimit(checked.user, address);
  if (full && has('eleventh-unsubscribes')) {
    for (const conn of connections) if (conn.user === checked.user) conn.subscriptions.clear();
  }
  if (full && variant('limit-http')) { httpRefuse(socket, 503, 'Rate limit exceeded'); return; }
  sockets.handleUpgrade(request, socket, head, (ws) => {
    ws.on('error', () => {});
    if (checked.error) { refuse(ws, checked.error, false); return; }
    if (full) { refuse(ws, variant('limit-text') ? 'Too many connections' : 'Rate limit exceeded', true); return; }
    if (has('token-once')) {
      const earlier = usedTokens.get(token);
      if (earlier && earlier.readyState !== earlier.OPEN) { refuse(ws, 'Invalid or expired token', false); return; }
      usedTokens.set(token, ws);
      bounded(usedTokens, 10000);
    }
    if (doorShutBy !== null && doorShutBy !== checked.user) {
      doorShutBy = null;
      refuse(ws, 'Rate limit exceeded', true);
      return;
    }
    admit(ws, socket, checked.user, token, address, endpoint, how);
  });
});

function admit(ws, socket, user, token, address, endpoint, how) {
  const conn = new Connection(ws, user, token, address, endpoint.type);
  connections.add(conn);
  stats.total += 1;
  held.all += 1;
  add(held.users, userSlot(user), 1);
  add(held.addresses, address, 1);
  if (has('fragmented') || has('ping-between-fragments')) watchFrames(socket, conn);
  if (!(has('header-not-subscribed') && how === 'header')) subscribe(conn, endpoint.type, endpoint.id ?? user, false);
  ws.on('message', (bytes, isBinary) => onMessage(conn, bytes, isBinary));
  ws.on('close', (code) => leave(conn, code));
  if (variant('hello')) {
    const event = buildEvent('system_status', {});
    conn.send(messageFor(conn, event, []));
  }
}

function leave(conn, code) {
  if (!connections.has(conn)) return;
  const all = [...connections];
  const place = all.indexOf(conn);
  connections.delete(conn);
  if (!(has('abort-keeps-slot') && code === 1006)) {
    held.all -= 1;
    add(held.users, userSlot(conn.user), -1);
    add(held.addresses, conn.address, -1);
  }
  for (const k of conn.subscriptions.keys()) {
    if (has('close-unsubscribes-user')) for (const c of connections) if (c.user === conn.user) c.subscriptions.delete(k);
    if (has('close-skips-next')) all.slice(place + 1).find((c) => c.subscriptions.has(k))?.skipNext.add(k);
  }
  if (has('owner-away-mutes-project') && ![...connections].some((c) => c.user === conn.user)) {
    mutedOwners.add(conn.user);
    if (mutedOwners.size > 10000) mutedOwners.clear();
  }
}

// ---------------------------------------------------------------------------
// Start and end

let ending = false;
function shutdown() {
  if (ending) return;
  ending = true;
  server.close();
  for (const ws of sockets.clients) ws.close(1001);
  setTimeout(() => process.exit(0), 300).unref();
  for (const ws of sockets.clients) ws.on('close', () => { if (sockets.clients.size === 0) process.exit(0); });
  if (sockets.clients.size === 0) process.exit(0);
}
process.on('SIGTERM', shutdown);
process.on('SIGINT', shutdown);

function every(ms, act) {
  if (ms > 0) setInterval(act, ms).unref();
}
every(variant('heartbeat-often') ? 40 : options['ping-interval'], heartbeat);
every(variant('status-often') ? 40 : options['status-interval'], () => { if (connections.size) deliver(buildEvent('system_status', {})); });

server.on('error', (error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
server.listen(options.port, '127.0.0.1', () => {
  process.stdout.write(`ws://127.0.0.1:${server.address().port}\n`);
});
