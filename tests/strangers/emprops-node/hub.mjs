#!/usr/bin/env node
// A job queue hub: JSON messages over WebSockets, after the document "WebSocket API Reference" (EmProps Job Queue).
// See README.md for how this hub reads the open points, for its options and its controls.
import http from 'node:http';
import crypto from 'node:crypto';
import { WebSocketServer, WebSocket } from 'ws';

// ---------------------------------------------------------------------------------------------------------------
// Bugs: kind, name, line of the document, its sentence, what the hub does wrong, how a client notices.

const BUGS = [
  // history
  ['history', 'ping-unanswered-after-malformed', 700, 'Pong (response) to a ping.',
    'after one malformed text, pings of that connection are not answered any more',
    'send text that is no JSON, then a ping: no pong comes'],
  ['history', 'second-capabilities-ignored', 406, 'worker_status carries the capabilities of the worker.',
    'only the first worker_status with capabilities counts; later ones are ignored',
    'after two status updates the worker is told of, and gets, no job for what the second one added'],
  ['history', 'job-status-cached', 182, 'response_job_status gives the progress of the job.',
    'a connection gets the progress and message of its first query for a job again while the job is in progress',
    'query at 10, progress to 60, query: still 10'],
  ['history', 'cancel-refused-after-error', 207, 'cancel_job is confirmed by job_cancelled.',
    'after a refused cancel_job, the next cancel_job of that connection is refused too',
    'cancel an unknown job, then a valid one: an error instead of job_cancelled'],
  ['history', 'second-retry-lost', 355, 'job_failed_ack: retry_scheduled true.',
    'the second scheduled retry of a job is acknowledged but never happens',
    'after the second failure the job is never assigned again, although retry_scheduled was true'],
  ['history', 'resubscription-silent', 433, 'subscribe_job_notifications with enabled true subscribes.',
    'a connection that switched its notifications off and on again gets none',
    'confirmed, but no job_update arrives'],
  ['history', 'stats-frozen', 477, 'Request immediate stats.',
    'the second and later request_stats of a connection repeat the first numbers',
    'pending_jobs does not change after a submission'],
  ['history', 'returning-worker-not-told', 490, 'Job available notification (to workers).',
    'a worker that left and registered again is told of no job',
    'no job_available after a return with the same worker_id'],
  ['history', 'retried-job-completion-silent', 760, 'Hub to client: job_completed after complete_job.',
    'a job that failed once and then completed is not announced to its submitter',
    'no job_completed after the second attempt'],
  ['history', 'cancelled-retry-returns', 208, 'A cancelled job has the status "cancelled".',
    'a job cancelled while its retry is pending comes back into the queue',
    'after the retry delay a worker is assigned a cancelled job'],
  ['history', 'submit-answer-cached', 22, 'Optional message id for tracking (chosen by each sender).',
    'a submit_job whose id another connection has used gets the answer to that other message',
    'two clients that use the same id get the same job_id'],
  // several
  ['several', 'max-jobs-overrun', 224, 'claim_job: max_jobs.',
    'a claim with max_jobs of two or more is given one job more', 'max_jobs 2, three jobs waiting: three job_assigned'],
  ['several', 'fifth-subscriber-evicts-first', 424, 'Subscribe to specific job.',
    'the fifth subscriber of a job evicts the first', 'the first of five subscribers gets no job_update'],
  ['several', 'second-job-replaces-first', 424, 'Subscribe to specific job.',
    'a second subscribe_job of a connection ends its first', 'no job_update for the first job'],
  ['several', 'one-off-all-off', 433, 'subscribe_job_notifications: enabled, per subscriber.',
    'enabled false of one connection ends the notifications of all', 'the other subscriber gets no job_update'],
  ['several', 'sixth-submit-unanswered', 158, 'submit_job is answered by job_accepted.',
    'the sixth submit_job of a burst (within 500 ms) is queued but not answered', 'six at once: five job_accepted'],
  ['several', 'subscriber-leave-drops-rest', 503, 'Job status change notification.',
    'when one subscriber of a job disconnects, the others are dropped too', 'the one that stayed gets no job_update'],
  ['several', 'notified-workers-overcounted', 165, 'job_accepted: notified_workers.',
    'workers with subscribe_to_jobs false are counted though they are not notified',
    'notified_workers is larger than the number of job_available sent'],
  ['several', 'interleaved-chunks-lost', 668, 'Chunks belong together by chunk_id.',
    'a chunk with another chunk_id throws away what the connection had sent of the one before',
    'of two interleaved chunked messages the first is never complete'],
  ['several', 'job-assigned-twice', 235, 'Job assignment to the worker that claimed.',
    'two workers that claim within 500 ms get the same job', 'two job_assigned with one job_id'],
  ['several', 'later-job-types-ignored', 437, 'filters: job_types is a list.',
    'only the first of the listed job types passes the filter', 'no job_update for a job of the second type'],
  ['several', 'fourth-chunk-set-stalls', 677, 'Chunk assembly complete.',
    'with three chunked messages begun on a connection, a fourth is never completed',
    'no chunked_message_complete for the fourth'],
  // identity
  ['identity', 'ack-names-latest-job', 322, 'job_completed_ack names the job completed.',
    'a worker that holds several jobs gets the ack with the id of the latest one', 'complete the first of two: wrong job_id'],
  ['identity', 'worker-ids-cut-at-32', 106, 'worker_id identifies the worker.',
    'workers whose ids share the first 32 characters are one worker; the later replaces the earlier',
    'the earlier worker\'s claim is refused'],
  ['identity', 'client-ids-folded', 80, 'client_registered repeats the client_id.',
    'a client_id that differs from a known one only in case is confirmed in the known spelling', 'wrong client_id'],
  ['identity', 'worker-ids-normalised', 106, 'worker_id identifies the worker.',
    'workers whose ids differ only in Unicode form are one worker; the later replaces the earlier',
    'the earlier worker\'s claim is refused'],
  ['identity', 'update-names-newest-worker', 509, 'job_update: worker_id of the job\'s worker.',
    'job_update names the worker that registered last in the whole hub', 'wrong worker_id with two workers'],
  ['identity', 'updates-follow-client-id', 760, 'Hub to the client that submitted: job_completed.',
    'updates go to the newest connection that registered the submitter\'s client_id',
    'with two connections of one application the submitter hears nothing and the other one everything'],
  ['identity', 'connection-id-shared', 82, 'assigned_connection_id identifies the connection.',
    'connections with the same client_id get the same assigned_connection_id', 'equal ids on two connections'],
  ['identity', 'chunks-shared-across-connections', 668, 'chunk_id is chosen by its sender.',
    'chunks of different connections with the same chunk_id go into one assembly',
    'a message is assembled from pieces of two senders, or fails'],
  ['identity', 'error-names-foreign-request', 616, 'error: request_id of the request.',
    'the request_id of an error is the last message id that another connection used', 'wrong request_id'],
  ['identity', 'failed-ack-names-first-worker', 354, 'job_failed_ack: worker_id of the worker.',
    'if an earlier attempt failed on another worker, the ack names that one', 'wrong worker_id in the ack'],
  ['identity', 'customer-filter-folded', 436, 'filters: customer_id.',
    'the filter compares customers without regard to case', 'notifications about the jobs of another customer'],
  // neighbours
  ['neighbours', 'open-chunks-block-others', 677, 'Chunk assembly complete.',
    'while one connection has an unfinished chunked message, those of others are not completed',
    'no chunked_message_complete'],
  ['neighbours', 'gone-worker-keeps-claim', 231, 'claim_job: claim_timeout.',
    'a job claimed by a worker that disconnects without accepting it is never offered again',
    'after claim_timeout no other worker gets it'],
  ['neighbours', 'error-drops-neighbour-update', 503, 'Job status change notification.',
    'an error sent to one client makes the next job_update to the others disappear', 'one job_update is missing'],
  ['neighbours', 'monitor-leave-silences-alerts', 546, 'System alert.',
    'when one monitor disconnects, the others get no alerts', 'no system_alert for the monitor that stayed'],
  ['neighbours', 'unaccepted-claim-blocks', 236, 'Job assignment to the worker that claimed.',
    'while one worker has not accepted its claim, others are assigned nothing', 'no job_assigned though a job waits'],
  ['neighbours', 'stats-stop-with-neighbour', 459, 'Subscribe to system stats.',
    'when one stats subscriber disconnects, others with the same interval get no more stats', 'no system_status'],
  ['neighbours', 'cancel-loses-next-job', 161, 'job_accepted: the job is queued.',
    'cancelling a queued job also loses the next job in the queue', 'another client\'s job is never assigned'],
  ['neighbours', 'leave-cancels-customer-jobs', 161, 'job_accepted: the job is queued.',
    'when a client disconnects, queued jobs of other clients with the same customer_id are lost',
    'the other client\'s job is never assigned'],
  ['neighbours', 'silent-connections-block-registration', 78, 'register_client is confirmed.',
    'while three connections have not registered, register_client of another is not answered', 'no client_registered'],
  ['neighbours', 'busy-worker-hides-job', 490, 'Job available notification (to workers).',
    'workers that registered after a busy one are not told of a job', 'no job_available for the idle worker'],
  ['neighbours', 'gone-submitter-blocks-ack', 321, 'complete_job is acknowledged by job_completed_ack.',
    'no ack if the job\'s submitter has disconnected', 'the worker gets no job_completed_ack'],
  // values
  ['values', 'progress-zero-omitted', 510, 'job_update: progress.',
    'progress 0 is taken for missing: the job_update keeps the earlier progress or none', 'progress is not 0'],
  ['values', 'payload-null-dropped', 242, 'job_assigned carries the payload.',
    'members of the payload whose value is null are dropped', 'member missing'],
  ['values', 'payload-markup-escaped', 242, 'job_assigned carries the payload.',
    '<, > and & in strings of the payload become HTML entities', 'changed strings'],
  ['values', 'message-cut-at-255', 511, 'job_update: message.',
    'a progress message is cut to 255 characters', 'shorter message'],
  ['values', 'payload-cut-at-nul', 242, 'job_assigned carries the payload.',
    'strings of the payload end at U+0000', 'shorter string'],
  ['values', 'numeric-text-converted', 242, 'job_assigned carries the payload.',
    'strings of the payload that look like a whole number become numbers', 'a number instead of "007"'],
  ['values', 'proto-member-lost', 242, 'job_assigned carries the payload.',
    'a payload member named "__proto__" is lost', 'member missing'],
  ['values', 'priority-zero-replaced', 241, 'job_assigned: priority of the job.',
    'priority 0 is replaced by 50', 'priority is 50'],
  ['values', 'empty-message-keeps-old', 511, 'job_update: message.',
    'an empty message is taken for missing; the earlier one is sent again', 'old message'],
  ['values', 'equal-gpu-memory-refused', 498, 'requirements: gpu_memory_gb is a minimum (gpu_memory_min).',
    'a worker with exactly the memory required does not get the job', 'no job_assigned'],
  ['values', 'prototype-type-unanswered', 647, 'Received unrecognized message type.',
    'message types that are names from an object\'s prototype are not answered', 'no unknown message'],
  ['values', 'short-processing-time-zero', 522, 'job_completed: processing_time.',
    'a processing_time below one second becomes 0', '0 instead of 0.25'],
  // equivalents
  ['equivalents', 'type-last-unknown', 26, 'A message is a JSON object (members are unordered, RFC 8259 section 4).',
    'a message whose last member is "type" is unknown', 'an unknown message instead of the answer'],
  ['equivalents', 'escaped-type-unknown', 20, 'type: string (escapes are equivalent, RFC 8259 section 7).',
    'a type spelled with escapes is unknown', 'an unknown message instead of the answer'],
  ['equivalents', 'three-frames-malformed', 16, 'Messages over WebSockets may be fragmented (RFC 6455 section 5.4).',
    'a message in three or more frames is refused as malformed', 'an error instead of the answer'],
  ['equivalents', 'leading-space-malformed', 16, 'White space around a JSON text is insignificant (RFC 8259 section 2).',
    'a text that begins with white space is refused as malformed', 'an error instead of the answer'],
  ['equivalents', 'exponent-refused', 139, 'priority is a number (exponents allowed, RFC 8259 section 6).',
    'a submit_job whose priority is spelled with an exponent is refused', 'an error instead of job_accepted'],
  ['equivalents', 'chunks-in-arrival-order', 669, 'chunk_index gives the place of a chunk.',
    'chunks are put together in order of arrival', 'reversed order: no chunked_message_complete'],
  ['equivalents', 'later-services-unmatched', 108, 'capabilities: services is a list.',
    'only the first service of a worker counts', 'no job for the second service'],
  ['equivalents', 'escaped-job-id-not-found', 24, 'job_id: string (escapes are equivalent, RFC 8259 section 7).',
    'a job_id spelled with escapes is not found', 'an error instead of the answer'],
  ['equivalents', 'connection-list-refused', 8, 'RFC 6455 4.2.1: the Connection header includes the token Upgrade.',
    'a handshake with "Connection: keep-alive, Upgrade" is refused', 'status 400 instead of 101'],
  ['equivalents', 'escapes-kept-in-payload', 242, 'job_assigned carries the payload (RFC 8259 section 7).',
    'characters that the client spelled as \\uXXXX reach the worker as six characters', 'changed strings'],
  ['equivalents', 'second-section-ignored', 480, 'include_sections is a list.',
    'only the first section asked for is in the answer', '["workers","jobs"]: no pending_jobs'],
  // one-of-many
  ['one-of-many', 'connector-status-unknown', 588, 'connector_ws_status is a documented message.',
    'connector_ws_status is answered as an unrecognized type', 'an unknown message'],
  ['one-of-many', 'chunk-complete-in-seconds', 21, 'timestamp: Unix timestamp in milliseconds.',
    'chunked_message_complete carries seconds', 'a timestamp in 1970'],
  ['one-of-many', 'second-monitor-unconfirmed', 42, 'Registration Confirmed.',
    'a monitor that registers while another one is connected is not confirmed; job clients and workers are', 'no client_registered'],
  ['one-of-many', 'failure-unannounced', 503, 'Job status change notification.',
    'a final failure is not announced to subscribers', 'no job_update'],
  ['one-of-many', 'cancel-unannounced', 503, 'Job status change notification.',
    'a cancellation is not announced to other subscribers', 'no job_update or job_cancelled'],
  ['one-of-many', 'cancel-previous-status-wrong', 508, 'job_update: previous_status.',
    'the job_update about a cancellation always says "queued" as previous_status', 'wrong for a job in progress'],
  ['one-of-many', 'chunked-completion-dropped', 682, 'Original message reconstructed from chunks.',
    'a complete_job sent in chunks is assembled but not carried out', 'no job_completed_ack, no job_completed'],
  ['one-of-many', 'priority-min-ignored', 438, 'filters: priority_min.',
    'priority_min does not filter', 'notifications about jobs of lower priority'],
  ['one-of-many', 'component-not-required', 150, 'requirements: component.',
    'the component is not compared with the capabilities', 'a worker without it is assigned the job'],
  ['one-of-many', 'shutdown-untold-to-workers', 718, 'Server disconnect notification.',
    'workers are closed without a server_disconnect', 'no server_disconnect'],
  ['one-of-many', 'completion-passes-status-filter', 439, 'filters: status.',
    'job_completed is sent to subscribers whose status filter has no "completed"', 'unwanted job_completed'],
].map(([kind, name, line, sentence, does, seen]) => ({ name, kind, line, sentence, does, seen }));

// ---------------------------------------------------------------------------------------------------------------
// Legal variants: name, what the hub does, why it may.

const VARIANTS = [
  ['reversed-members', 'members of every object in reverse order', 'RFC 8259 section 4: an object is unordered'],
  ['extra-members', 'an additional member in every message', 'line 26: additional message-specific properties'],
  ['spaced-json', 'line feeds and indentation in every message', 'RFC 8259 section 2: insignificant white space'],
  ['escaped-text', 'characters outside a-z, A-Z, 0-9 in strings, and member names, as \\uXXXX', 'RFC 8259 section 7: any character may be escaped'],
  ['other-number-spelling', 'whole numbers with ".0", fractions with an exponent', 'RFC 8259 section 6: spellings of a number'],
  ['fragmented', 'every message in three frames', 'RFC 6455 section 5.4: fragmentation'],
  ['protocol-pings', 'a WebSocket ping before every second message', 'RFC 6455 section 5.5.2: a ping at any time'],
  ['application-pings', 'a ping message every 50 ms', 'line 694: ping (periodic), the direction is open'],
  ['delayed', 'every message leaves 1 to 25 ms late, in order', 'no time limit in the document'],
  ['workers-first', 'job_available leaves before job_accepted', 'lines 158 and 490: no order between the two'],
  ['newest-first', 'notifications go to the newest connection first', 'no order between recipients (line 485)'],
  ['uuid-ids', 'job, connection and subscription ids are UUIDs', 'line 24: ids are strings; "job-abc123" is an example'],
  ['long-ids', 'ids of 80 characters that share the first 64', 'line 24: ids are strings of any length'],
  ['digit-ids', 'ids are digits with leading zeros', 'line 24: ids are strings'],
  ['unicode-ids', 'ids contain characters outside ASCII', 'line 24: ids are strings'],
  ['other-texts', 'other free texts in message, error, content and reason; server_version 7', 'lines 53, 609, 648: texts and versions are examples'],
  ['other-error-codes', 'other error codes where the document names none', 'line 610: only INVALID_PARAMETERS and AUTH_FAILED are named'],
  ['null-unknowns', 'members without a value are null instead of absent', 'line 26; the document does not say how "not yet known" is written'],
  ['ack-everything', 'an ack for every message, also for those with an answer of their own', 'line 636: generic acknowledgment; line 640 shows it for submit_job'],
  ['no-acks', 'no generic ack at all', 'line 636: no sentence demands an ack'],
  ['timestamp-required', 'messages without a number as timestamp are refused', 'line 21: timestamp is not optional'],
  ['registration-required', 'messages before registration are refused', 'lines 39 to 44: registration comes first'],
  ['announce-waiting', 'a new worker is told of the jobs that wait', 'line 490: job available notification (to workers)'],
  ['stats-at-once', 'subscribe_stats is followed by a system_status at once', 'line 534: system status update at any time'],
  ['short-filters', 'filters_applied names only customer_id and job_types', 'lines 448 to 451 show just these for four filters'],
  ['all-sections', 'system_status always has all members', 'lines 534 to 543 show all of them'],
  ['status-to-monitors', 'monitors get a system_status after each change', 'line 534: system status update'],
  ['update-before-completed', 'a job_update "completed" precedes job_completed', 'line 503: job status change notification'],
  ['clock-ahead', 'the clock of the hub is 90 seconds ahead', 'line 21: clocks of hub and client need not agree'],
  ['own-ids', 'every message of the hub has id and source', 'lines 22 and 23: optional members'],
  ['compressed', 'permessage-deflate is accepted when offered', 'RFC 7692; RFC 6455 section 9'],
  ['quiet-job-subscription', 'subscribe_job is not confirmed', 'line 424: no confirmation is shown for it'],
  ['chunk-acks', 'an ack for every chunk', 'line 636: generic acknowledgment'],
  ['snapshot-on-subscribe', 'subscribe_job is followed by a job_update with the present state', 'line 503: the notification is not limited to changes after it'],
  ['short-result', 'job_completed has only success and output_files of the result', 'lines 523 to 526 show just these'],
  ['no-queued-update', 'no job_update when a job is submitted', 'line 747: the first update of the flow is "assigned"'],
  ['held-claims', 'jobs of a gone worker come back when claim_timeout is over, not at once', 'line 231: claim_timeout'],
  ['offset-times', 'ISO times with an offset and no fraction', 'line 164: ISO 8601 by example only'],
  ['close-without-code', 'closing frames carry no status code', 'RFC 6455 section 5.5.1: the body is optional'],
  ['owner-cancels', 'only the connection that submitted a job may cancel it', 'line 194: who may cancel is open'],
  ['idle-notified-only', 'busy workers are not told of jobs', 'line 490: which workers are told is open'],
  ['original-rewritten', 'original_message is the message encoded anew', 'line 649: the same message, its spelling is open'],
].map(([name, does, why]) => ({ name, does, why }));

// ---------------------------------------------------------------------------------------------------------------
// Options

const SETTINGS = {
  port: 0,                        // 0: any free port
  seed: 0,                        // 0: from the clock
  'worker-token': '',             // if set, register_worker needs "token" with this value
  'retry-delay': 1,               // seconds
  'max-retries': 5,
  'claim-timeout': 30000,         // ms, if claim_job names none
  'heartbeat-interval': 60,       // seconds
  'ping-interval': 0,             // seconds between ping messages of the hub; 0: none
  'stats-interval': 5,            // seconds, if subscribe_stats names none
  'chunk-timeout': 60,            // seconds an unfinished chunked message is kept
  'max-message-bytes': 10 * 1024 * 1024,
  'max-assembly-bytes': 64 * 1024 * 1024, // all unfinished chunks of a connection
  'max-jobs': 10000,              // jobs remembered
  'max-retained-bytes': 256 * 1024 * 1024, // payloads of unfinished jobs
  'max-connections': 2000,
};

export function parseArgs(argv) {
  const o = { bug: null, variants: new Set(), list: false, ...SETTINGS };
  for (let i = 0; i < argv.length; i++) {
    const name = argv[i].replace(/^--/, '');
    if (name === 'list') { o.list = true; continue; }
    const value = argv[++i];
    if (value === undefined) throw new Error(`${argv[i - 1]} needs a value`);
    if (name === 'bug') {
      if (o.bug) throw new Error('at most one --bug');
      if (!BUGS.some(b => b.name === value)) throw new Error(`no bug named ${value}`);
      o.bug = value;
    } else if (name === 'variant') {
      if (!VARIANTS.some(v => v.name === value)) throw new Error(`no variant named ${value}`);
      o.variants.add(value);
    } else if (Object.hasOwn(SETTINGS, name)) {
      o[name] = typeof SETTINGS[name] === 'number' ? Number(value) : value;
      if (Number.isNaN(o[name])) throw new Error(`--${name} needs a number`);
    } else throw new Error(`unknown option ${argv[i - 1]}`);
  }
  return o;
}

// ---------------------------------------------------------------------------------------------------------------
// Small functions

const isObject = v => typeof v === 'object' && v !== null && !Array.isArray(v);
const isText = v => typeof v === 'string';
const list = v => (Array.isArray(v) ? v : []);
const FINAL = new Set(['completed', 'failed', 'cancelled']);

function random(seed) { // mulberry32
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function tooDeep(raw, limit = 500) {
  let depth = 0, quoted = false;
  for (let i = 0; i < raw.length; i++) {
    const c = raw.charCodeAt(i);
    if (quoted) {
      if (c === 92) i++;
      else if (c === 34) quoted = false;
    } else if (c === 34) quoted = true;
    else if (c === 123 || c === 91) { if (++depth > limit) return true; }
    else if (c === 125 || c === 93) depth--;
  }
  return false;
}

// Applies f to every string, and keep(key, value) to every member, of a JSON value.
function mapJson(v, f, keep = () => true) {
  if (isText(v)) return f(v);
  if (Array.isArray(v)) return v.map(x => mapJson(x, f, keep));
  if (!isObject(v)) return v;
  const out = {};
  for (const [k, x] of Object.entries(v)) {
    if (!keep(k, x)) continue;
    Object.defineProperty(out, k, { value: mapJson(x, f, keep), enumerable: true, writable: true, configurable: true });
  }
  return out;
}

class Refusal extends Error { // becomes an error message to the client
  constructor(code, error, details, named = false) { super(error); this.code = code; this.details = details; this.named = named; }
}
const invalid = (field, message, value) =>
  new Refusal('INVALID_PARAMETERS', `Invalid parameters: ${field}`, { field, message, provided_value: value === undefined ? null : value }, true);
const needText = (msg, field) => {
  if (!isText(msg[field])) throw invalid(field, 'Must be a string', msg[field]);
  return msg[field];
};

// ---------------------------------------------------------------------------------------------------------------
// One connection

class Connection {
  constructor(hub, ws) {
    this.hub = hub;
    this.ws = ws;
    this.id = hub.newId('conn');
    this.client = null;            // { id, type }
    this.workers = new Map();      // key -> Worker
    this.watched = new Set();      // jobs subscribed to
    this.notifications = null;     // { id, filters }
    this.stats = null;             // { interval, sections, timer }
    this.chunks = new Map();       // chunk_id -> assembly
    this.chunkBytes = 0;
    this.out = [];                 // delayed messages
    this.frames = 1;
    this.memory = {};              // what the bugs remember
  }
  get open() { return this.ws.readyState === WebSocket.OPEN; }
  get registered() { return this.client !== null || this.workers.size > 0; }

  send(msg) {
    if (!this.open) return;
    const text = this.hub.encode(msg);
    if (this.hub.v('delayed')) this.later(() => this.write(text));
    else this.write(text);
  }
  later(f) {
    this.out.push(f);
    if (this.out.length > 1) return;
    const step = () => {
      this.out[0]();
      this.out.shift();
      if (this.out.length) setTimeout(step, 1 + this.hub.random() * 8);
    };
    setTimeout(step, 1 + this.hub.random() * 24);
  }
  write(text) {
    if (!this.open) return;
    if (this.ws.bufferedAmount > 64 * 1024 * 1024) { this.ws.terminate(); return; } // does not read
    if (this.hub.v('protocol-pings') && (this.sent = (this.sent || 0) + 1) % 2 === 0) this.ws.ping();
    if (!this.hub.v('fragmented')) { this.ws.send(text); return; }
    const data = Buffer.from(text);
    const third = Math.ceil(data.length / 3);
    this.ws.send(data.subarray(0, third), { fin: false, binary: false });
    this.ws.send(data.subarray(third, 2 * third), { fin: false, binary: false });
    this.ws.send(data.subarray(2 * third), { fin: true, binary: false });
  }
  close(code) {
    const f = () => (this.hub.v('close-without-code') ? this.ws.close() : this.ws.close(code));
    if (this.hub.v('delayed')) this.later(f); else f();
  }
}

// ---------------------------------------------------------------------------------------------------------------
// The hub

class Hub {
  constructor(options) {
    this.o = options;
    this.random = random(options.seed || (Date.now() ^ process.pid));
    this.idRun = Math.floor(this.random() * 1e9).toString(36);
    this.count = 0;
    this.conns = new Set();
    this.workers = new Map();       // key -> Worker
    this.jobs = new Map();          // job_id -> job
    this.retained = 0;
    this.completions = [];          // times of the last hour
    this.alerts = [];
    this.memory = { submitAnswers: new Map(), gone: new Set(), spelling: new Map(), connectionIds: new Map(), chunks: new Map() };
    this.started = Date.now();
    const period = this.v('application-pings') ? 50 : options['ping-interval'] * 1000;
    if (period > 0) this.pinger = setInterval(() => this.pingAll(), period);
  }
  b(name) { return this.o.bug === name; }
  v(name) { return this.o.variants.has(name); }
  now() { return Date.now() + (this.v('clock-ahead') ? 90000 : 0); }
  iso(ms) {
    const text = new Date(ms).toISOString();
    return this.v('offset-times') ? text.replace(/\.\d+Z$/, '+00:00') : text;
  }
  newId(prefix) {
    const n = ++this.count;
    if (this.v('uuid-ids')) return crypto.randomUUID();
    if (this.v('digit-ids')) return String(n).padStart(12, '0');
    if (this.v('long-ids')) return `${prefix}-${this.idRun}`.padEnd(64, '0') + String(n).padStart(16, '0');
    if (this.v('unicode-ids')) return `${prefix}-é漢🙂-${this.idRun}-${n}`;
    return `${prefix}-${this.idRun}${n.toString(36)}`;
  }

  // ---- encoding

  encode(msg) {
    const out = {};
    for (const [k, x] of Object.entries(msg)) {
      if (x !== undefined) out[k] = x;
      else if (this.v('null-unknowns')) out[k] = null;
    }
    if (out.timestamp === undefined) out.timestamp = this.now();
    if (this.v('own-ids')) { out.id ??= this.newId('msg'); out.source = 'hub'; }
    if (this.v('extra-members')) out.hub_extra = { note: 'x', n: [0, null, ''] };
    if (!['reversed-members', 'escaped-text', 'other-number-spelling'].some(n => this.v(n))) {
      return JSON.stringify(out, null, this.v('spaced-json') ? '\n\t ' : undefined);
    }
    return this.spell(out);
  }
  spell(x) {
    if (isText(x)) {
      if (!this.v('escaped-text')) return JSON.stringify(x);
      return '"' + x.replace(/[^a-zA-Z0-9]/g, c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0')) + '"';
    }
    if (typeof x === 'number' && this.v('other-number-spelling')) {
      if (!Number.isInteger(x)) return x.toExponential();
      return Math.abs(x) < 1e15 ? `${JSON.stringify(x)}.0` : x.toExponential();
    }
    if (Array.isArray(x)) return '[' + x.map(y => this.spell(y)).join(',') + ']';
    if (!isObject(x)) return JSON.stringify(x);
    let members = Object.entries(x).filter(m => m[1] !== undefined);
    if (this.v('reversed-members')) members = members.reverse();
    return '{' + members.map(([k, y]) => this.spell(k) + ':' + this.spell(y)).join(',') + '}';
  }

  // ---- connections

  connect(ws) {
    if (this.conns.size >= this.o['max-connections']) { ws.close(1013); return; }
    const conn = new Connection(this, ws);
    this.conns.add(conn);
    ws.on('error', () => {});
    ws.on('message', (data, binary) => this.receive(conn, data, binary));
    ws.on('close', () => this.leave(conn));
    if (this.b('three-frames-malformed')) this.countFrames(conn);
    conn.send({
      type: 'connection_established',
      message: this.v('other-texts') ? '' : 'Connected to EmProps Job Queue Hub',
      server_version: this.v('other-texts') ? '7' : '1.0.0',
    });
  }
  countFrames(conn) {
    const receiver = conn.ws._receiver;
    const original = receiver.dataMessage;
    receiver.dataMessage = function (cb) {
      conn.frames = this._fragments.length;
      return original.call(this, cb);
    };
  }

  leave(conn) {
    this.conns.delete(conn);
    conn.ended = true;
    this.stopStats(conn);
    for (const a of conn.chunks.values()) clearTimeout(a.timer);
    for (const job of conn.watched) {
      if (this.b('subscriber-leave-drops-rest')) job.watchers.clear(); else job.watchers.delete(conn);
    }
    for (const worker of conn.workers.values()) this.loseWorker(worker);
    if (conn.client?.type === 'monitor') this.memory.monitorLeft = true;
    if (this.b('stats-stop-with-neighbour') && conn.hadStats) {
      for (const c of this.conns) if (c.stats?.interval === conn.hadStats) this.stopStats(c);
    }
    if (this.b('leave-cancels-customer-jobs')) {
      for (const job of this.jobs.values()) {
        if (job.owner !== conn && job.status === 'queued' && conn.memory.customers?.has(job.customer)) job.lost = true;
      }
    }
    conn.watched.clear();
    conn.notifications = null;
    this.changed();
  }
  loseWorker(worker) {
    if (this.workers.get(worker.key) !== worker) return;
    this.workers.delete(worker.key);
    if (this.memory.gone.size < 10000) this.memory.gone.add(worker.key);
    for (const job of this.jobs.values()) {
      if (job.workerKey !== worker.key || FINAL.has(job.status) || job.status === 'queued') continue;
      if (!job.accepted && this.b('gone-worker-keeps-claim')) { clearTimeout(job.claimTimer); continue; }
      if (!job.accepted && this.v('held-claims')) continue; // the claim timer runs on
      this.requeue(job, 'Worker disconnected', 0);
    }
  }
  pingAll() { for (const c of this.conns) c.send({ type: 'ping' }); }

  // ---- receiving

  receive(conn, data, binary) {
    const raw = data.toString();
    try {
      if (binary) throw new Refusal('INVALID_MESSAGE', 'Binary messages are not supported');
      let msg;
      if (this.b('leading-space-malformed') && /^\s/.test(raw)) throw new Refusal('INVALID_JSON', 'Message is not JSON');
      if (this.b('three-frames-malformed') && conn.frames >= 3) throw new Refusal('INVALID_JSON', 'Message is not JSON');
      if (tooDeep(raw)) throw new Refusal('INVALID_MESSAGE', 'Message is nested too deeply');
      try { msg = JSON.parse(raw); } catch {
        conn.memory.malformed = true;
        throw new Refusal('INVALID_JSON', 'Message is not JSON');
      }
      if (!isObject(msg)) throw new Refusal('INVALID_MESSAGE', 'Message is not an object');
      this.dispatch(conn, msg, raw, false);
    } catch (e) { this.fail(conn, e, undefined); }
    if (isText(conn.lastId)) { this.memory.lastId = conn.lastId; this.memory.lastIdConn = conn; }
  }

  dispatch(conn, msg, raw, assembled) {
    const type = Object.hasOwn(msg, 'type') ? msg.type : undefined;
    const id = isText(msg.id) ? msg.id : undefined;
    if (id !== undefined) conn.lastId = id;
    try {
      if (!isText(type)) throw new Refusal('INVALID_MESSAGE', 'Message has no type', { field: 'type', message: 'Must be a string', provided_value: type ?? null });
      if (this.v('timestamp-required') && typeof msg.timestamp !== 'number') {
        throw new Refusal('INVALID_MESSAGE', 'Message has no timestamp', { field: 'timestamp', message: 'Must be a number', provided_value: msg.timestamp ?? null });
      }
      let handler = HANDLERS.get(type);
      if (this.b('type-last-unknown') && Object.keys(msg).at(-1) === 'type' && Object.keys(msg).length > 1) handler = undefined;
      if (this.b('escaped-type-unknown') && !raw.includes(JSON.stringify(type))) handler = undefined;
      if (this.b('connector-status-unknown') && type === 'connector_ws_status') handler = undefined;
      if (!handler) {
        if (this.b('prototype-type-unanswered') && type in Object.prototype) return;
        conn.send({
          type: 'unknown',
          content: this.v('other-texts') ? '?' : 'Received unrecognized message type',
          original_message: this.v('original-rewritten') ? JSON.stringify(msg) : raw,
        });
        return;
      }
      const free = new Set(['register_client', 'register_worker', 'ping', 'pong', 'disconnect', 'chunked_message']);
      if (this.v('registration-required') && !conn.registered && !free.has(type)) {
        throw new Refusal('NOT_REGISTERED', 'Register first', { type });
      }
      const answered = handler.call(this, conn, msg, raw, assembled);
      const wanted = (this.v('ack-everything') && type !== 'pong') || (id !== undefined && !answered);
      if (wanted && !this.v('no-acks')) this.ack(conn, id, type);
    } catch (e) { this.fail(conn, e, id); }
    if (type === 'disconnect') conn.close(1000);
  }
  ack(conn, id, type) {
    conn.send({ type: 'ack', message_id: id ?? this.newId('msg'), original_type: type, status: 'processed' });
  }
  fail(conn, e, id) {
    if (!(e instanceof Refusal)) {
      process.stderr.write(`${e.stack}\n`);
      e = new Refusal('INTERNAL_ERROR', 'Internal error');
    }
    if (this.b('error-names-foreign-request') && id !== undefined && this.memory.lastIdConn && this.memory.lastIdConn !== conn) {
      id = this.memory.lastId;
    }
    if (this.b('error-drops-neighbour-update')) this.memory.dropNext = conn;
    const named = e.named || e.code === 'AUTH_FAILED';
    conn.send({
      type: 'error',
      error: this.v('other-texts') ? 'no' : e.message,
      error_code: this.v('other-error-codes') && !named ? `E-${e.code.length}-${e.code.toLowerCase()}` : e.code,
      details: e.details ?? {},
      request_id: id,
    });
  }

  // ---- workers and matching

  key(workerId) {
    if (this.b('worker-ids-cut-at-32')) return workerId.slice(0, 32);
    if (this.b('worker-ids-normalised')) return workerId.normalize('NFC');
    return workerId;
  }
  workerOf(conn, msg) {
    const worker = conn.workers.get(this.key(needText(msg, 'worker_id')));
    if (!worker) throw new Refusal('UNKNOWN_WORKER', 'Worker is not registered on this connection', { worker_id: msg.worker_id });
    return worker;
  }
  setCapabilities(worker, c) {
    if (c === undefined || c === null) return;
    if (!isObject(c)) throw invalid('capabilities', 'Must be an object', c);
    for (const f of ['services', 'components']) {
      if (Object.hasOwn(c, f) && !(Array.isArray(c[f]) && c[f].every(isText))) throw invalid(`capabilities.${f}`, 'Must be a list of strings', c[f]);
    }
    if (Object.hasOwn(c, 'services')) worker.services = c.services;
    if (Object.hasOwn(c, 'components')) worker.components = c.components;
    if (isObject(c.hardware)) worker.hardware = c.hardware;
  }
  matches(worker, job) {
    const r = job.requirements;
    if (!isObject(r)) return true;
    const services = this.b('later-services-unmatched') ? worker.services.slice(0, 1) : worker.services;
    if (isText(r.service_type) && !services.includes(r.service_type)) return false;
    if (isText(r.component) && !worker.components.includes(r.component) && !this.b('component-not-required')) return false;
    for (const [k, need] of Object.entries(isObject(r.hardware) ? r.hardware : {})) {
      const has = Object.hasOwn(worker.hardware, k) ? worker.hardware[k] : undefined;
      if (typeof need === 'number') {
        if (typeof has !== 'number' || has < need) return false;
        if (this.b('equal-gpu-memory-refused') && k === 'gpu_memory_gb' && has === need) return false;
      } else if (need !== null && has !== need) return false;
    }
    return true;
  }
  announce(job, deliver = (c, m) => c.send(m)) { // job_available; returns the number of workers told
    let told = 0, extra = 0;
    const r = isObject(job.requirements) ? job.requirements : {};
    const memory = isObject(r.hardware) ? r.hardware.gpu_memory_gb : undefined;
    const summary = {};
    if (isText(r.service_type)) summary.service_type = r.service_type;
    if (isText(r.component)) summary.component = r.component;
    if (typeof memory === 'number') summary.gpu_memory_min = memory;
    const workers = [...this.workers.values()];
    if (this.v('newest-first')) workers.reverse();
    for (const w of workers) {
      if (!this.matches(w, job)) continue;
      if (!w.subscribed) { extra++; continue; }
      if (w.status === 'busy' && this.v('idle-notified-only')) continue;
      if (this.b('returning-worker-not-told') && this.memory.gone.has(w.key)) continue;
      deliver(w.conn, { type: 'job_available', job_id: job.id, job_type: job.type, priority: job.priority, requirements_summary: summary });
      told++;
      if (w.status === 'busy' && this.b('busy-worker-hides-job')) break;
    }
    return this.b('notified-workers-overcounted') ? told + extra : told;
  }

  // ---- jobs

  jobOf(msg, raw) {
    const id = needText(msg, 'job_id');
    const job = this.jobs.get(id);
    const unseen = this.b('escaped-job-id-not-found') && !raw.includes(JSON.stringify(id));
    if (!job || unseen) throw new Refusal('JOB_NOT_FOUND', 'Job not found', { job_id: id });
    return job;
  }
  heldJob(worker, msg, raw) {
    const job = this.jobOf(msg, raw);
    if (job.workerKey !== worker.key || (job.status !== 'assigned' && job.status !== 'in_progress')) {
      throw new Refusal('NOT_ASSIGNED', 'Job is not assigned to this worker', { job_id: job.id, worker_id: worker.id });
    }
    return job;
  }
  passes(filters, job, status, completed) {
    const f = filters;
    if (isText(f.customer_id)) {
      const fold = x => (this.b('customer-filter-folded') && isText(x) ? x.toLowerCase() : x);
      if (fold(f.customer_id) !== fold(job.customer)) return false;
    }
    if (Array.isArray(f.job_types)) {
      const types = this.b('later-job-types-ignored') ? f.job_types.slice(0, 1) : f.job_types;
      if (!types.includes(job.type)) return false;
    }
    if (typeof f.priority_min === 'number' && job.priority < f.priority_min && !this.b('priority-min-ignored')) return false;
    if (Array.isArray(f.status) && !f.status.includes(status)) return completed && this.b('completion-passes-status-filter');
    return true;
  }
  ownerOf(job) {
    if (!this.b('updates-follow-client-id') || !job.owner.client) return job.owner;
    let owner = job.owner;
    for (const c of this.conns) if (c.client?.id === job.owner.client.id) owner = c;
    return owner;
  }
  notify(job, msg, { owner = true, watchers = true, except = null } = {}) {
    const to = new Set();
    if (owner) to.add(this.ownerOf(job));
    if (watchers) for (const c of job.watchers) to.add(c);
    for (const c of this.conns) {
      if (c.notifications && !c.memory.muted && this.passes(c.notifications.filters, job, msg.status, msg.type === 'job_completed')) to.add(c);
    }
    to.delete(except);
    let all = [...to].filter(c => c.open);
    if (this.v('newest-first')) all.reverse();
    if (this.memory.dropNext && msg.type === 'job_update' && all.some(c => c !== this.memory.dropNext)) {
      all = all.filter(c => c === this.memory.dropNext);
      this.memory.dropNext = null;
    }
    for (const c of all) c.send(msg);
  }
  update(job, previous, options = {}) {
    let worker = job.workerId;
    if (this.b('update-names-newest-worker') && worker !== undefined && this.memory.newestWorker !== undefined) worker = this.memory.newestWorker;
    this.notify(job, {
      type: 'job_update', job_id: job.id, status: job.status, previous_status: previous, worker_id: worker,
      progress: job.progress, message: options.message ?? job.message,
    }, options);
  }
  setMessage(job, text) {
    this.retained += text.length - (job.message?.length ?? 0);
    job.message = text;
  }
  requeue(job, why, delayMs) {
    const previous = job.status, wasAccepted = job.accepted;
    clearTimeout(job.claimTimer);
    job.status = 'queued';
    job.accepted = false;
    job.workerKey = job.workerId = undefined;
    job.progress = undefined;
    job.startedAt = undefined;
    const ready = () => { job.waiting = false; this.announce(job); this.changed(); };
    if (delayMs > 0) {
      job.waiting = true;
      job.retryTimer = setTimeout(() => {
        if (this.b('cancelled-retry-returns') && job.status === 'cancelled') job.status = 'queued';
        ready();
      }, delayMs);
    }
    if (wasAccepted) this.update(job, previous, { message: why });
    if (!(delayMs > 0)) ready();
  }
  finish(job, status) {
    job.status = status;
    clearTimeout(job.claimTimer);
    if (!this.b('cancelled-retry-returns')) {
      clearTimeout(job.retryTimer);
      job.payload = undefined;
    }
    this.retained -= job.size;
    job.size = 0;
    job.finishedAt = this.now();
    if (this.jobs.size > this.o['max-jobs']) {
      for (const [id, old] of this.jobs) {
        if (!FINAL.has(old.status) || old === job) continue;
        this.retained -= old.message?.length ?? 0;
        for (const c of old.watchers) c.watched.delete(old);
        this.jobs.delete(id);
        if (this.jobs.size <= this.o['max-jobs']) break;
      }
    }
    this.changed();
  }
  claimable(worker, job, now) {
    if (job.lost || job.waiting) return false;
    const again = this.b('job-assigned-twice') && job.status === 'assigned' && job.workerKey !== worker.key && now - job.claimedAt < 500;
    return (job.status === 'queued' || again) && this.matches(worker, job);
  }

  // ---- stats

  system(sections) {
    const out = { type: 'system_status' };
    let active = 0, pending = 0;
    for (const j of this.jobs.values()) {
      if (j.status === 'queued') pending++;
      else if (!FINAL.has(j.status)) active++;
    }
    const all = this.v('all-sections') || sections === null;
    const hour = this.now() - 3600e3;
    while (this.completions.length && this.completions[0] < hour) this.completions.shift();
    if (all || sections.includes('workers')) out.active_workers = this.workers.size;
    if (all || sections.includes('jobs')) {
      out.pending_jobs = pending;
      out.active_jobs = active;
      out.completed_jobs_last_hour = this.completions.length;
    }
    if (all || sections.includes('system')) { out.system_health = 'healthy'; out.alerts = this.alerts; }
    return out;
  }
  sectionsOf(msg) {
    const s = msg.include_sections;
    if (s === undefined || s === null) return null;
    if (!Array.isArray(s) || !s.every(isText)) throw invalid('include_sections', 'Must be a list of strings', s);
    return this.b('second-section-ignored') ? s.slice(0, 1) : s;
  }
  stopStats(conn) {
    if (!conn.stats) return;
    clearInterval(conn.stats.timer);
    conn.hadStats = conn.stats.interval;
    conn.stats = null;
  }
  changed() {
    if (!this.v('status-to-monitors') || this.announcing) return;
    this.announcing = setTimeout(() => {
      this.announcing = null;
      for (const c of this.conns) if (c.client?.type === 'monitor') c.send(this.system(null));
    }, 5);
  }

  // ---- controls

  control(name, body) {
    switch (name) {
      case 'alert': {
        const alert = {
          type: 'system_alert', severity: body.severity ?? 'warning', category: body.category ?? 'resource_constraint',
          message: body.message ?? 'Queue depth exceeding normal capacity', details: body.details ?? {},
          actions_recommended: body.actions_recommended ?? [],
        };
        let told = 0;
        this.alerts = [...this.alerts, { severity: alert.severity, category: alert.category, message: alert.message }].slice(-20);
        for (const c of this.conns) {
          if (c.client?.type !== 'monitor' && !c.stats) continue;
          if (this.b('monitor-leave-silences-alerts') && this.memory.monitorLeft) continue;
          c.send(alert);
          told++;
        }
        return { told };
      }
      case 'submit': { // a job that no connection submitted
        let answer = null;
        const operator = { open: false, client: null, memory: {}, watched: new Set(), send: m => { answer ??= m; } };
        HANDLERS.get('submit_job').call(this, operator, body, JSON.stringify(body));
        return answer;
      }
      case 'clear-alerts': this.alerts = []; return {};
      case 'broadcast':
        for (const c of this.conns) if (c.stats) c.send(this.system(c.stats.sections));
        return {};
      case 'ping': this.pingAll(); return {};
      case 'shutdown': {
        let told = 0;
        for (const c of this.conns) {
          if (!(c.workers.size && this.b('shutdown-untold-to-workers'))) {
            c.send({
              type: 'server_disconnect', reason: body.reason ?? (this.v('other-texts') ? '' : 'Server maintenance'),
              reconnect_after: this.now() + (body.estimated_downtime ?? 60) * 1000, estimated_downtime: body.estimated_downtime ?? 60,
            });
            told++;
          }
          c.close(1001);
        }
        return { told };
      }
      case 'state':
        return { connections: this.conns.size, workers: this.workers.size, jobs: this.jobs.size, retained_bytes: this.retained };
      default: return null;
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------
// One handler for each message type. A handler returns true if it sent an answer of its own.

const HANDLERS = new Map(Object.entries({

  register_client(conn, msg) {
    const id = needText(msg, 'client_id');
    const type = isText(msg.client_type) ? msg.client_type : 'job_client';
    if (this.b('silent-connections-block-registration')) {
      let silent = 0;
      for (const c of this.conns) if (c !== conn && !c.registered) silent++;
      if (silent >= 3) return true;
    }
    conn.client = { id, type };
    const rival = c => c !== conn && c.client?.type === 'monitor';
    if (type === 'monitor' && this.b('second-monitor-unconfirmed') && [...this.conns].some(rival)) return true;
    let shown = id, connectionId = conn.id;
    if (this.b('client-ids-folded')) {
      const known = this.memory.spelling;
      if (!known.has(id.toLowerCase()) && known.size < 10000) known.set(id.toLowerCase(), id);
      shown = known.get(id.toLowerCase()) ?? id;
    }
    if (this.b('connection-id-shared')) {
      const known = this.memory.connectionIds;
      if (!known.has(id) && known.size < 10000) known.set(id, conn.id);
      connectionId = known.get(id) ?? conn.id;
    }
    conn.send({ type: 'client_registered', client_id: shown, status: 'registered', assigned_connection_id: connectionId });
    if (type === 'monitor') this.changed();
    return true;
  },

  register_worker(conn, msg) {
    const id = needText(msg, 'worker_id');
    if (this.o['worker-token'] && msg.token !== this.o['worker-token']) {
      throw new Refusal('AUTH_FAILED', 'Authentication failed', { reason: 'Invalid worker token', worker_id: id });
    }
    const key = this.key(id);
    if (!conn.workers.has(key) && conn.workers.size >= 16) throw new Refusal('TOO_MANY', 'Too many workers on this connection');
    const worker = {
      id, key, conn, services: [], components: [], hardware: {},
      subscribed: msg.subscribe_to_jobs !== false, status: isText(msg.status) ? msg.status : 'idle', capabilityUpdates: 0,
    };
    this.setCapabilities(worker, msg.capabilities);
    const old = this.workers.get(key);
    if (old && old.conn !== conn) old.conn.workers.delete(key); // the newer connection takes over, with the jobs
    this.workers.delete(key);
    this.workers.set(key, worker);
    conn.workers.set(key, worker);
    this.memory.newestWorker = id;
    conn.send({ type: 'worker_registered', worker_id: id, status: 'registered', assigned_connection_id: conn.id });
    if (this.v('announce-waiting') && worker.subscribed) {
      for (const job of this.jobs.values()) {
        if (this.claimable(worker, job, Date.now())) {
          conn.send({ type: 'job_available', job_id: job.id, job_type: job.type, priority: job.priority, requirements_summary: {} });
        }
      }
    }
    this.changed();
    return true;
  },

  submit_job(conn, msg, raw) {
    const type = needText(msg, 'job_type');
    let priority = msg.priority ?? 50;
    if (typeof priority !== 'number') throw invalid('priority', 'Must be a number', msg.priority);
    if (this.b('exponent-refused') && /"priority"\s*:\s*-?[\d.]+[eE]/.test(raw)) throw invalid('priority', 'Must be a number', msg.priority);
    const customer = msg.customer_id ?? undefined;
    if (customer !== undefined && !isText(customer)) throw invalid('customer_id', 'Must be a string', customer);
    const requirements = msg.requirements ?? undefined;
    if (requirements !== undefined && !isObject(requirements)) throw invalid('requirements', 'Must be an object', requirements);
    const memory = isObject(requirements?.hardware) ? requirements.hardware.gpu_memory_gb : undefined;
    if (memory !== undefined && memory !== null && !(typeof memory === 'number' && memory > 0)) {
      throw invalid('requirements.hardware.gpu_memory_gb', 'Must be a positive number', memory);
    }
    if (this.b('submit-answer-cached') && isText(msg.id)) {
      const known = this.memory.submitAnswers.get(msg.id);
      if (known && known.conn !== conn) { conn.send(known.answer); return true; }
    }
    if (this.jobs.size >= this.o['max-jobs'] * 2 || this.retained + raw.length > this.o['max-retained-bytes']) {
      throw new Refusal('QUEUE_FULL', 'Too many jobs');
    }
    if (this.b('priority-zero-replaced')) priority = priority || 50;
    const job = {
      id: this.newId('job'), type, priority, payload: this.takePayload(msg, raw), requirements, customer, owner: conn,
      status: 'queued', progress: undefined, message: undefined, estimated: undefined, workerId: undefined, workerKey: undefined,
      startedAt: undefined, accepted: false, waiting: false, lost: false, failures: 0, watchers: new Set(), size: raw.length, seq: ++this.count,
    };
    let position = 1;
    for (const j of this.jobs.values()) if (j.status === 'queued' && j.priority >= priority) position++;
    this.jobs.set(job.id, job);
    this.retained += job.size;
    if (customer !== undefined) {
      conn.memory.customers ??= new Set();
      if (conn.memory.customers.size < 1000) conn.memory.customers.add(customer);
    }
    const answer = told => ({
      type: 'job_accepted', job_id: job.id, status: 'queued', position, estimated_start: this.iso(this.now() + position * 10000), notified_workers: told,
    });
    const reply = told => {
      const m = answer(told);
      if (this.b('submit-answer-cached') && isText(msg.id) && this.memory.submitAnswers.size < 10000) this.memory.submitAnswers.set(msg.id, { conn, answer: m });
      if (this.b('sixth-submit-unanswered')) {
        conn.memory.burst = (conn.memory.burst || 0) + 1;
        setTimeout(() => { conn.memory.burst--; }, 500);
        if (conn.memory.burst === 6) return;
      }
      conn.send(m);
    };
    if (this.v('workers-first')) reply(this.announce(job));
    else { // the workers' messages wait until the answer has left
      const waiting = [];
      reply(this.announce(job, (c, m) => waiting.push([c, m])));
      for (const [c, m] of waiting) c.send(m);
    }
    if (!this.v('no-queued-update')) this.update(job, undefined, { owner: false, watchers: false });
    this.changed();
    return true;
  },

  request_job_status(conn, msg, raw) {
    const job = this.jobOf(msg, raw);
    let progress = job.progress, message = job.message;
    if (this.b('job-status-cached') && job.status === 'in_progress') {
      conn.memory.status ??= new Map();
      if (!conn.memory.status.has(job.id) && conn.memory.status.size < 1000) conn.memory.status.set(job.id, { progress, message });
      ({ progress, message } = conn.memory.status.get(job.id) ?? { progress, message });
    }
    conn.send({
      type: 'response_job_status', job_id: job.id, status: job.status, progress, worker_id: job.workerId,
      started_at: job.startedAt, estimated_completion: job.estimated, message,
    });
    return true;
  },

  cancel_job(conn, msg, raw) {
    if (this.b('cancel-refused-after-error') && conn.memory.cancelRefused) {
      conn.memory.cancelRefused = false;
      throw new Refusal('INVALID_STATE', 'Job cannot be cancelled', { job_id: msg.job_id });
    }
    conn.memory.cancelRefused = true;
    const job = this.jobOf(msg, raw);
    if (FINAL.has(job.status)) throw new Refusal('INVALID_STATE', 'Job is finished', { job_id: job.id, status: job.status });
    if (this.v('owner-cancels') && job.owner !== conn) throw new Refusal('FORBIDDEN', 'Job of another client', { job_id: job.id });
    conn.memory.cancelRefused = false;
    const previous = job.status;
    const worker = this.workers.get(job.workerKey);
    if (this.b('cancel-loses-next-job') && previous === 'queued') {
      for (const j of this.jobs.values()) if (j.status === 'queued' && j.seq > job.seq) { j.lost = true; break; }
    }
    this.finish(job, 'cancelled');
    const at = job.finishedAt;
    conn.send({ type: 'job_cancelled', job_id: job.id, status: 'cancelled', cancelled_at: at, timestamp: at });
    if (worker && worker.conn !== conn) worker.conn.send({ type: 'job_cancelled', job_id: job.id, worker_id: worker.id, status: 'cancelled', cancelled_at: at });
    if (!this.b('cancel-unannounced')) {
      this.update(job, this.b('cancel-previous-status-wrong') ? 'queued' : previous, { message: isText(msg.reason) ? msg.reason : undefined, except: conn });
    }
    return true;
  },

  claim_job(conn, msg) {
    const worker = this.workerOf(conn, msg);
    let max = msg.max_jobs ?? 1;
    if (typeof max !== 'number' || !(max >= 0)) throw invalid('max_jobs', 'Must be a number', msg.max_jobs);
    const timeout = msg.claim_timeout ?? this.o['claim-timeout'];
    if (typeof timeout !== 'number' || !(timeout > 0)) throw invalid('claim_timeout', 'Must be a positive number', msg.claim_timeout);
    const preferred = list(msg.preferred_types);
    if (this.b('unaccepted-claim-blocks')) {
      for (const j of this.jobs.values()) if (j.status === 'assigned' && !j.accepted && j.workerKey !== worker.key) return false;
    }
    if (this.b('max-jobs-overrun') && max >= 2) max++;
    const now = Date.now();
    const found = [];
    for (const j of this.jobs.values()) if (this.claimable(worker, j, now)) found.push(j);
    found.sort((a, b) => preferred.includes(b.type) - preferred.includes(a.type) || b.priority - a.priority || a.seq - b.seq);
    for (const job of found.slice(0, Math.floor(max))) {
      clearTimeout(job.claimTimer);
      job.status = 'assigned';
      job.workerKey = worker.key;
      job.workerId = worker.id;
      job.claimedAt = now;
      job.accepted = false;
      job.claimTimer = setTimeout(() => { if (job.status === 'assigned' && !job.accepted) this.requeue(job, 'Claim timed out', 0); }, Math.min(timeout, 2 ** 31 - 1));
      conn.send({
        type: 'job_assigned', job_id: job.id, worker_id: worker.id, job_type: job.type, priority: job.priority,
        payload: job.payload, requirements: job.requirements, claim_timeout: timeout,
      });
    }
    this.changed();
    return found.length > 0 && max >= 1;
  },

  job_accepted_by_worker(conn, msg, raw) {
    const worker = this.workerOf(conn, msg);
    const job = this.heldJob(worker, msg, raw);
    if (isText(msg.estimated_completion)) job.estimated = msg.estimated_completion.slice(0, 200);
    if (job.accepted) return false;
    this.start(job);
    this.update(job, 'queued');
    return false;
  },

  update_job_progress(conn, msg, raw) {
    const worker = this.workerOf(conn, msg);
    const job = this.heldJob(worker, msg, raw);
    const progress = msg.progress ?? undefined;
    if (progress !== undefined && typeof progress !== 'number') throw invalid('progress', 'Must be a number', progress);
    if (!job.accepted) this.start(job);
    const previous = job.status;
    job.status = 'in_progress';
    if (progress !== undefined && !(progress === 0 && this.b('progress-zero-omitted'))) job.progress = progress;
    if (isText(msg.message) && !(msg.message === '' && this.b('empty-message-keeps-old'))) {
      const text = this.b('message-cut-at-255') ? msg.message.slice(0, 255) : msg.message;
      if (this.retained + text.length > this.o['max-retained-bytes']) throw new Refusal('QUEUE_FULL', 'Too much text');
      this.setMessage(job, text);
    }
    if (isText(msg.estimated_completion)) job.estimated = msg.estimated_completion.slice(0, 200);
    this.update(job, previous);
    return false;
  },

  complete_job(conn, msg, raw) {
    const worker = this.workerOf(conn, msg);
    const job = this.heldJob(worker, msg, raw);
    if (this.b('gone-submitter-blocks-ack') && job.owner.ended) return true;
    let named = job.id;
    if (this.b('ack-names-latest-job')) {
      for (const j of this.jobs.values()) if (j.workerKey === worker.key && (j.status === 'assigned' || j.status === 'in_progress')) named = j.id;
    }
    const previous = job.status;
    this.finish(job, 'completed');
    this.completions.push(this.now());
    if (this.completions.length > 100000) this.completions.shift();
    conn.send({ type: 'job_completed_ack', job_id: named, worker_id: worker.id });
    let result = msg.result;
    if (this.v('short-result') && isObject(result)) result = { success: result.success, output_files: result.output_files };
    let time = msg.processing_time;
    if (this.b('short-processing-time-zero') && time > 0 && time < 1) time = 0;
    const options = { owner: !(this.b('retried-job-completion-silent') && job.failures > 0) };
    if (this.v('update-before-completed')) this.update(job, previous, options);
    this.notify(job, {
      type: 'job_completed', job_id: job.id, status: 'completed', worker_id: worker.id, priority: job.priority, processing_time: time, result,
    }, options);
    return true;
  },

  fail_job(conn, msg, raw) {
    const worker = this.workerOf(conn, msg);
    const job = this.heldJob(worker, msg, raw);
    const retry = msg.retry === true && job.failures < this.o['max-retries'];
    const delay = this.o['retry-delay'];
    const why = isText(msg.error) ? msg.error : undefined;
    job.failures++;
    job.firstFailedOn ??= worker.id;
    conn.send({
      type: 'job_failed_ack', job_id: job.id, worker_id: this.b('failed-ack-names-first-worker') ? job.firstFailedOn : worker.id,
      retry_scheduled: retry, retry_delay: retry ? delay : undefined,
    });
    if (retry) {
      job.accepted = true; // announce the change in any case
      this.requeue(job, why, delay * 1000);
      if (job.failures === 2 && this.b('second-retry-lost')) clearTimeout(job.retryTimer);
    } else {
      const previous = job.status;
      this.finish(job, 'failed');
      if (!this.b('failure-unannounced')) this.update(job, previous, { message: why });
    }
    return true;
  },

  worker_heartbeat(conn, msg) {
    const worker = this.workerOf(conn, msg);
    if (isText(msg.status)) worker.status = msg.status;
    conn.send({
      type: 'worker_heartbeat_ack', worker_id: worker.id, status: 'acknowledged', next_heartbeat_expected: this.now() + this.o['heartbeat-interval'] * 1000,
    });
    return true;
  },

  worker_status(conn, msg) {
    const worker = this.workerOf(conn, msg);
    if (isText(msg.status)) worker.status = msg.status;
    if (isObject(msg.capabilities)) worker.capabilityUpdates++;
    if (!(worker.capabilityUpdates > 1 && this.b('second-capabilities-ignored'))) this.setCapabilities(worker, msg.capabilities);
    this.changed();
    return false;
  },

  subscribe_job(conn, msg, raw) {
    const job = this.jobOf(msg, raw);
    if (conn.watched.size >= 10000) throw new Refusal('TOO_MANY', 'Too many subscriptions');
    if (this.b('second-job-replaces-first')) {
      for (const j of conn.watched) j.watchers.delete(conn);
      conn.watched.clear();
    }
    if (this.b('fifth-subscriber-evicts-first') && job.watchers.size >= 4 && !job.watchers.has(conn)) {
      const first = job.watchers.values().next().value;
      job.watchers.delete(first);
    }
    job.watchers.add(conn);
    conn.watched.add(job);
    if (!this.v('quiet-job-subscription')) conn.send({ type: 'subscription_confirmed', subscription_type: 'job', job_id: job.id });
    if (this.v('snapshot-on-subscribe')) {
      conn.send({ type: 'job_update', job_id: job.id, status: job.status, worker_id: job.workerId, progress: job.progress, message: job.message });
    }
    return !this.v('quiet-job-subscription');
  },

  subscribe_job_notifications(conn, msg) {
    if (msg.enabled === false) {
      conn.notifications = null;
      if (this.b('one-off-all-off')) for (const c of this.conns) c.notifications = null;
      if (this.b('resubscription-silent')) conn.memory.muted = true;
      return false;
    }
    const f = msg.filters ?? {};
    if (!isObject(f)) throw invalid('filters', 'Must be an object', f);
    const filters = {};
    const checks = {
      customer_id: [isText, 'Must be a string'], priority_min: [x => typeof x === 'number', 'Must be a number'],
      job_types: [x => Array.isArray(x) && x.every(isText), 'Must be a list of strings'],
      status: [x => Array.isArray(x) && x.every(isText), 'Must be a list of strings'],
    };
    for (const [name, [ok, text]] of Object.entries(checks)) {
      const value = Object.hasOwn(f, name) ? f[name] : undefined;
      if (value === undefined || value === null) continue;
      if (!ok(value)) throw invalid(`filters.${name}`, text, value);
      filters[name] = value;
    }
    conn.notifications = { id: this.newId('sub'), filters };
    const shown = this.v('short-filters') ? { customer_id: filters.customer_id, job_types: filters.job_types } : filters;
    conn.send({ type: 'job_notifications_subscribed', subscription_id: conn.notifications.id, filters_applied: shown });
    return true;
  },

  subscribe_stats(conn, msg) {
    if (msg.enabled === false) { this.stopStats(conn); conn.hadStats = undefined; return false; }
    let interval = msg.interval_seconds ?? this.o['stats-interval'];
    if (typeof interval !== 'number' || !(interval > 0)) throw invalid('interval_seconds', 'Must be a positive number', msg.interval_seconds);
    interval = Math.min(Math.max(interval, 0.1), 86400);
    const sections = this.sectionsOf(msg);
    this.stopStats(conn);
    conn.stats = { interval, sections, timer: setInterval(() => conn.send(this.system(sections)), interval * 1000) };
    const now = this.now();
    conn.send({ type: 'subscription_confirmed', subscription_type: 'stats', update_interval: interval, next_broadcast: now + interval * 1000, timestamp: now });
    if (this.v('stats-at-once')) conn.send(this.system(sections));
    return true;
  },

  request_stats(conn, msg) {
    let answer = this.system(this.sectionsOf(msg));
    if (this.b('stats-frozen')) answer = conn.memory.stats ??= answer;
    conn.send(answer);
    return true;
  },

  service_request(conn, msg) { this.workerOf(conn, msg); return false; },
  connector_ws_status(conn, msg) { this.workerOf(conn, msg); return false; },

  chunked_message(conn, msg, raw, assembled) {
    if (assembled) throw new Refusal('INVALID_MESSAGE', 'Chunks within chunks');
    this.chunk(conn, msg);
    return !this.v('chunk-acks');
  },

  ping(conn) {
    if (this.b('ping-unanswered-after-malformed') && conn.memory.malformed) return true;
    conn.send({ type: 'pong' });
    return true;
  },
  pong() { return false; },
  disconnect() { return false; }, // dispatch closes the connection after the ack

}));

Hub.prototype.start = function (job) {
  clearTimeout(job.claimTimer);
  job.accepted = true;
  job.startedAt = this.now();
};

Hub.prototype.takePayload = function (msg, raw) {
  let payload = msg.payload;
  if (this.b('escapes-kept-in-payload')) payload = JSON.parse(raw.replace(/\\u(?=[0-9a-fA-F]{4})/g, '\\\\u')).payload;
  const same = x => x;
  if (this.b('payload-null-dropped')) return mapJson(payload, same, (k, x) => x !== null);
  if (this.b('proto-member-lost')) return mapJson(payload, same, k => k !== '__proto__');
  if (this.b('payload-markup-escaped')) return mapJson(payload, x => x.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;'));
  if (this.b('payload-cut-at-nul')) return mapJson(payload, x => x.split('\0')[0]);
  if (this.b('numeric-text-converted')) return mapJson(payload, x => (/^\d{1,15}$/.test(x) ? Number(x) : x));
  return payload;
};

Hub.prototype.chunk = function (conn, msg) {
  const id = needText(msg, 'chunk_id');
  const { chunk_index: index, total_chunks: total } = msg;
  if (!Number.isInteger(total) || total < 1 || total > 10000) throw invalid('total_chunks', 'Must be a whole number from 1 to 10000', total);
  if (!Number.isInteger(index) || index < 0 || index > total) throw invalid('chunk_index', 'Must be a whole number within total_chunks', index);
  const data = needText(msg, 'data');
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(data)) throw invalid('data', 'Must be base64', data.slice(0, 40));
  const store = this.b('chunks-shared-across-connections') ? this.memory.chunks : conn.chunks;
  const drop = a => { clearTimeout(a.timer); a.conn.chunkBytes -= a.bytes; store.delete(a.id); };
  if (this.b('interleaved-chunks-lost') && !store.has(id)) for (const other of [...store.values()]) drop(other);
  let a = store.get(id);
  if (a && a.total !== total) { drop(a); throw invalid('total_chunks', 'Differs from the earlier chunks', total); }
  if (conn.chunkBytes + data.length > this.o['max-assembly-bytes'] || (!a && store.size >= 1000)) {
    throw new Refusal('TOO_LARGE', 'Too much in unfinished chunked messages', { chunk_id: id });
  }
  if (!a) {
    a = { id, total, parts: new Map(), bytes: 0, conn, stalled: this.b('fourth-chunk-set-stalls') && store.size >= 3 };
    a.timer = setTimeout(() => {
      drop(a);
      this.fail(conn, new Refusal('CHUNK_TIMEOUT', 'Chunked message not finished', { chunk_id: id }), undefined);
    }, this.o['chunk-timeout'] * 1000);
    store.set(id, a);
  }
  const old = a.parts.get(index)?.length ?? 0;
  a.parts.set(index, data);
  a.bytes += data.length - old;
  a.conn.chunkBytes += data.length - old;
  if (this.v('chunk-acks')) this.ack(conn, isText(msg.id) ? msg.id : undefined, 'chunked_message');
  if (a.parts.size < total || a.stalled) return;
  if (this.b('open-chunks-block-others')) for (const c of this.conns) if (c !== conn && c.chunks.size) return;
  drop(a);
  let parts = [...a.parts];
  if (!this.b('chunks-in-arrival-order')) parts.sort((x, y) => x[0] - y[0]);
  parts = parts.map(p => p[1]);
  // Each chunk encoded for itself, or one encoding cut into pieces: take the one that fits the hash.
  const whole = [Buffer.concat(parts.map(p => Buffer.from(p, 'base64'))), Buffer.from(parts.join(''), 'base64')];
  const hash = isText(msg.data_hash) ? msg.data_hash.replace(/^sha256[-:=]/i, '').toLowerCase() : null;
  const sum = x => crypto.createHash('sha256').update(x).digest('hex');
  let body = hash === null ? whole[0] : whole.find(w => sum(w) === hash);
  if (!body && sum(parts.join('')) === hash) body = whole[0];
  if (!body) throw new Refusal('HASH_MISMATCH', 'Chunks do not match data_hash', { chunk_id: id });
  const text = body.toString();
  let message;
  try { if (!tooDeep(text)) message = JSON.parse(text); } catch { /* refused below */ }
  if (!isObject(message)) throw new Refusal('INVALID_MESSAGE', 'Chunks do not contain a message', { chunk_id: id });
  conn.send({
    type: 'chunked_message_complete', chunk_id: id, total_size: body.length, assembled_message: message,
    timestamp: this.b('chunk-complete-in-seconds') ? Math.floor(this.now() / 1000) : this.now(),
  });
  if (!Object.hasOwn(message, 'type') && isText(msg.original_type)) message.type = msg.original_type;
  if (this.b('chunked-completion-dropped') && message.type === 'complete_job') return;
  this.dispatch(conn, message, text, true);
};

// ---------------------------------------------------------------------------------------------------------------
// HTTP, sockets, start and end

export function startHub(options) {
  const hub = new Hub(options);
  const server = http.createServer((req, res) => {
    const answer = (code, body) => {
      res.writeHead(code, { 'content-type': 'application/json' });
      res.end(JSON.stringify(body));
    };
    const m = /^\/control\/([a-z-]+)$/.exec(req.url);
    if (!m || req.method !== 'POST') { answer(m ? 405 : 426, { error: 'WebSocket or POST /control/NAME' }); req.resume(); return; }
    const parts = [];
    let size = 0;
    req.on('data', d => { size += d.length; if (size <= 1048576) parts.push(d); });
    req.on('error', () => {});
    req.on('end', () => {
      try {
        if (size > 1048576) throw new Error('body too large');
        const body = size ? JSON.parse(Buffer.concat(parts).toString()) : {};
        if (!isObject(body)) throw new Error('body must be an object');
        const result = hub.control(m[1], body);
        if (result === null) answer(404, { error: `no control named ${m[1]}` });
        else answer(200, result);
      } catch (e) { answer(400, { error: e.message }); }
    });
  });
  const wss = new WebSocketServer({ noServer: true, maxPayload: options['max-message-bytes'], perMessageDeflate: options.variants.has('compressed') });
  server.on('upgrade', (req, socket, head) => {
    socket.on('error', () => {});
    if (options.bug === 'connection-list-refused' && (req.headers.connection ?? '').includes(',')) {
      socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    wss.handleUpgrade(req, socket, head, ws => hub.connect(ws));
  });
  server.on('clientError', (e, socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(options.port, '127.0.0.1', () => resolve({
      hub, port: server.address().port,
      async stop() {
        hub.control('shutdown', {});
        server.close();
        server.closeAllConnections?.();
        await new Promise(r => setTimeout(r, 100));
        for (const c of hub.conns) c.ws.terminate();
        clearInterval(hub.pinger);
      },
    }));
  });
}

async function main() {
  let options;
  try { options = parseArgs(process.argv.slice(2)); } catch (e) { console.error(e.message); process.exit(2); }
  if (options.list) { console.log(JSON.stringify({ bugs: BUGS, variants: VARIANTS }, null, 1)); return; }
  const running = await startHub(options);
  let ending = false;
  const end = async () => {
    if (ending) return;
    ending = true;
    await running.stop();
    process.exit(0);
  };
  process.on('SIGTERM', end);
  process.on('SIGINT', end);
  process.stdout.write(`ws://127.0.0.1:${running.port}\n`);
}

main();
