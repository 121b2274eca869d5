#!/usr/bin/env node
// A small hub of the EmProps job queue, written from the protocol's document alone, by nobody who wrote the judge: what the
// judge says about it shows what the judge asks beyond the document. It therefore has habits no other hub has, each of
// them legal. `--plain` turns the habits off, to tell a wrong hub from an odd one.
//
//     node tests/hubs/emprops.mjs [--port N] [--seed N] [--plain] [--bug NAME] [--retry-delay SECONDS]
//                                 [--heartbeat-ms N] [--slow-ms N] [--token TEXT]
//
// prints `ws://127.0.0.1:PORT` first, ends on SIGTERM or SIGINT.
//
// The habits, and why each is legal:
//  1 members in random order, `type` anywhere: a JSON object is unordered.
//  2 unknown members in every message, with nested objects that have a `type` themselves: `[key: string]: any`.
//  3 whitespace around tokens, \u escapes in names and values, `\/`: RFC 8259.
//  4 numbers as 7.5e1, 75.0 or 75E0: one JSON number has many spellings, the document says `number`.
//  5 messages in up to four frames, some of them empty, cut inside UTF-8 sequences, pings in between: RFC 6455 5.4.
//  6 pings and unasked pongs with payloads at any time, also before the first message: RFC 6455 5.5.2, 5.5.3.
//  7 TCP segments cut anywhere, the upgrade's answer and the first frames in one segment: TCP is a stream.
//  8 an upgrade answer with odd header case, other reason phrase, extra headers: HTTP header names have no case.
//  9 slow answers (up to --slow-ms, 120): the document gives no time for any of them.
// 10 notifications before or after the answer to the message that caused them: the document fixes no order.
// 11 ids that look like nothing in the examples (spaces, slashes, umlauts): `job_id?: string`, nothing about its form.
// 12 free texts (`message`, `content`, `error`) in another language: they are examples.
// 13 what has no value is absent, or null where BaseMessage does not say `string`: the document itself sends nulls.
// 14 the hub sends JSON `ping`s of its own: the document gives the ping no direction.
// 15 a generic `ack` beside the specific answer, and for messages that have none: the document defines it for any message.
// 16 a `job_available` for the queued jobs to a worker that comes later, a `system_status` to a monitor that registers, a
//    `job_update` beside `job_completed` and `job_cancelled`: each is what its heading says it is, sent to whom it concerns.
// 17 closing without status and without reason: RFC 6455 5.5.1.
// 18 `103 Early Hints` before the 101: RFC 9110 15.2, a client takes further 1xx answers.
// 19 a message in frames of one byte: RFC 6455 5.4.
// 20 a `timestamp` with a fraction: `number`.
// 21 `unknown` repeats only the beginning of a message, as the example does.
// 22 job notifications to the job's worker as well, a `system_status` to everybody when a job comes or goes: the
//    notifications' headings name no one, except for `job_available`.
// 23 a clock that is 37 minutes ahead, and times with an offset: the document says Unix time, not whose.
// 24 `chunked_message_complete` with `{}`: so it stands in the example.
// and by the bits of the seed, since a hub does not change its mind:
//  pings first      pings are answered at once, while other messages wait their turn: the document fixes no order between
//                   answers to different requests.
//  claims wait      a claim for which there is no job stays open for its `claim_timeout`: what else times out is open.
//  chunks from one  `chunk_index` counts from 1: the example has 1 of 5, and no 0.
//  position from 0  `position` counts the jobs before this one.
//  assigned twice   a `job_update` (assigned) when a job is assigned and again when its worker has accepted it.
//  one job each     a worker that has a job gets no other: `concurrent_slots` is 1 in the example.
//  failed meanwhile a job that will be tried again is told as failed, then as queued: both are changes of its state.
//  preferred only   a claim brings jobs of its `preferred_types` only, where it has some.
//
// Signals make happen what the document lets a hub do by itself: SIGUSR1 a `system_alert`. With --token a worker shows it
// as `token` in register_worker, a member of ours, since the document names none.
//
// Left out on purpose: sending chunked messages (it only takes them), `service_request` beyond an ack, subscriptions that
// outlive a disconnect, TLS.
import { createHash } from 'node:crypto';
import { below, chance, close, newId, nothing, odd, pick, serve, setUp, text, transmit } from './odd.mjs';

const options = { port: 0, seed: 1, bug: '', 'retry-delay': 0.4, 'heartbeat-ms': 60000, 'slow-ms': 120, token: '', plain: false };
for (let i = 2; i < process.argv.length; i++) {
  const name = process.argv[i].replace(/^--/, '');
  if (!(name in options)) {
    console.error(`emprops.mjs: no option ${process.argv[i]}; options: ${Object.keys(options).map((o) => `--${o}`).join(' ')}`);
    process.exit(2);
  }
  options[name] = name === 'plain' ? true : ['bug', 'token'].includes(name) ? process.argv[++i] : Number(process.argv[++i]);
}
const BUGS = ['', 'double-assign', 'forget-lapsed', 'notify-all', 'lowest-first', 'silent-cancel', 'cancel-in-words', 'any-worker'];
if (!BUGS.includes(options.bug)) {
  console.error(`emprops.mjs: no bug ${options.bug}; bugs: ${BUGS.slice(1).join(' ')}`);
  process.exit(2);
}
const now = () => Date.now() + (options.plain ? 0 : 37 * 60 * 1000);
const bug = (name) => options.bug === name;
setUp({ seed: options.seed, plain: options.plain, slow: options['slow-ms'] });
const MAX_ASSEMBLED = 64 * 1024 * 1024;
const MAX_ATTEMPTS = 4;

const habit = Object.fromEntries(['pings first', 'claims wait', 'chunks from one', 'position from 0', 'assigned twice', 'one job each', 'failed meanwhile', 'preferred only']
  .map((name, bit) => [name, odd && ((options.seed >> bit) & 1) === 1]));

// ---------------------------------------------------------------- one turn: what one message causes, sent in some legal order

let effects = null;
/** Sends the answer to the message at hand. */
const answer = (conn, message) => effects.push({ conn, message, notice: false });
/** Sends what somebody should know, before or after the answers of this turn. */
const notify = (conn, message) => effects.push({ conn, message, notice: true });

/** Runs `act` and then sends what it caused: answers in their order, notices in theirs, which of the two first is open. */
function turn(act) {
  const outer = effects; // a turn may end a connection, which is a turn of its own
  const caused = [];
  effects = caused;
  act();
  effects = outer;
  const noticesFirst = chance(0.5);
  for (const first of [true, false]) {
    for (const { conn, message, notice } of caused) {
      if ((notice === noticesFirst) === first) transmit(conn, { timestamp: now() + (chance(0.1) ? 0.25 : 0), ...message });
    }
  }
}
const later = (ms, act) => setTimeout(() => turn(act), ms);

// ---------------------------------------------------------------- the hub

const connections = new Set();
const jobs = new Map();
const workers = new Map(); // by worker_id: { id, conn, capabilities, listens, status }
const clients = new Map(); // by client_id: the connection that registered it last
const chunks = new Map(); // by connection and chunk_id
const finished = []; // times of completion
const waiting = new Set(); // claims for which there was no job
let order = 0;

const isObject = (v) => v !== null && typeof v === 'object' && !Array.isArray(v);
const isText = (v) => typeof v === 'string' && v !== '';
const isNumber = (v) => typeof v === 'number' && Number.isFinite(v);
const isoIn = (seconds) => pick(new Date(now() + seconds * 1000).toISOString(), new Date(now() + (seconds + 7200) * 1000).toISOString().replace('Z', '+02:00'));

class Refusal extends Error {
  constructor(code, message, details) {
    super(message);
    Object.assign(this, { code, details });
  }
}
function need(holds, field, message, value) {
  if (!holds) throw new Refusal('INVALID_PARAMETERS', 'Invalid parameters', { field, message, provided_value: value ?? null });
}
function needRole(conn, ...roles) {
  if (!roles.includes(conn.role)) throw new Refusal('NOT_REGISTERED', `Register as ${roles.join(' or ')} first`, { role: conn.role });
}
function needJob(id) {
  need(isText(id), 'job_id', 'Must be the id of a job', id);
  const job = jobs.get(id);
  if (!job) throw new Refusal('JOB_NOT_FOUND', `No job ${id}`, { job_id: id });
  return job;
}
/** The job of a worker's message, which must be this worker's. */
function needOwnJob(conn, message) {
  needRole(conn, 'worker');
  const job = needJob(message.job_id);
  if (message.worker_id !== undefined && message.worker_id !== conn.worker.id) {
    throw new Refusal('WORKER_MISMATCH', 'This connection is another worker', { worker_id: conn.worker.id });
  }
  const active = job.status === 'assigned' || job.status === 'in_progress';
  if (!active || (job.worker !== conn.worker.id && !bug('any-worker'))) {
    throw new Refusal('NOT_ASSIGNED', 'The job is not assigned to this worker', { job_id: job.id, status: job.status });
  }
  return job;
}

function greet(conn) {
  Object.assign(conn, { role: null, notifications: new Map(), todo: [] });
  connections.add(conn);
  turn(() => notify(conn, { type: 'connection_established', message: text('Connected to EmProps Job Queue Hub'), server_version: pick('1.0.0', '0.0.0-nightly+ü') }));
  if (odd) conn.pinger = setInterval(() => turn(() => notify(conn, { type: 'ping' })), 700 + below(800));
}

function arrive(conn, content) {
  if (!habit['pings first'] || /"type"\s*:\s*"ping"/.test(content.slice(0, 200))) return turn(() => receive(conn, content));
  conn.todo.push(content);
  if (conn.todo.length === 1) setTimeout(work, below(40), conn);
  return undefined;
}
function work(conn) {
  turn(() => receive(conn, conn.todo[0]));
  conn.todo.shift();
  if (conn.todo.length) setTimeout(work, below(40), conn);
  else if (!conn.open) leave(conn);
}

/** A connection is gone: its subscriptions end and its jobs go back to the queue. */
function leave(conn) {
  if (conn.todo.length || !connections.delete(conn)) return;
  clearInterval(conn.stats);
  clearInterval(conn.pinger);
  for (const key of chunks.keys()) if (key.startsWith(`${conn.id}\n`)) chunks.delete(key);
  for (const job of jobs.values()) job.followers.delete(conn);
  if (clients.get(conn.client) === conn) clients.delete(conn.client);
  if (conn.worker && workers.get(conn.worker.id)?.conn === conn) turn(() => loseWorker(conn.worker));
}
function loseWorker(worker) {
  workers.delete(worker.id);
  clearTimeout(worker.deadline);
  for (const job of jobs.values()) if (job.worker === worker.id && isActive(job)) requeue(job, text('The worker is gone'));
}

const isActive = (job) => job.status === 'assigned' || job.status === 'in_progress';

/** Whether a worker with these capabilities can do a job with these requirements; what is not required does not matter. */
function fits(capabilities, requirements) {
  const { service_type: service, component, hardware } = requirements ?? {};
  const listed = (list, wanted) => !isText(wanted) || (Array.isArray(list) && list.includes(wanted));
  return listed(capabilities.services, service) && listed(capabilities.components, component)
    && Object.entries(isObject(hardware) ? hardware : {}).every(([name, wanted]) => {
      const has = capabilities.hardware?.[name];
      return isNumber(wanted) ? isNumber(has) && has >= wanted : has === wanted;
    });
}

const queue = () => [...jobs.values()].filter((job) => job.status === 'queued')
  .sort((a, b) => (bug('lowest-first') ? a.priority - b.priority : b.priority - a.priority) || a.order - b.order);

/** Who hears of a job: who submitted it, who follows it, and whose filters let this status pass. */
function audience(job, status, withOwner = true) {
  if (bug('notify-all')) return [...connections];
  const owner = job.owner.open ? job.owner : clients.get(job.owner.client);
  const worker = odd ? workers.get(job.worker)?.conn : undefined;
  return [...connections].filter((conn) => (withOwner && conn === owner) || job.followers.has(conn) || conn === worker
    || [...conn.notifications.values()].some((filters) => passes(filters, job, status)));
}
function passes(filters, job, status) {
  return (filters.customer_id === undefined || filters.customer_id === job.customer)
    && (filters.job_types === undefined || filters.job_types.includes(job.type))
    && (filters.priority_min === undefined || job.priority >= filters.priority_min)
    && (filters.status === undefined || filters.status.includes(status));
}

/** Moves a job to a status and tells those concerned. */
function move(job, status, message, { withOwner = true } = {}) {
  const before = job.status;
  job.status = status;
  for (const conn of audience(job, status, withOwner)) {
    notify(conn, {
      type: 'job_update', job_id: job.id, status, previous_status: before ?? nothing(), worker_id: job.worker,
      progress: job.progress ?? nothing(), message: message ?? nothing(),
    });
  }
}

/** Tells the workers that listen and can do the job; returns how many. */
function offer(job, only = null) {
  const told = [...workers.values()].filter((w) => (!only || w === only) && w.listens && fits(w.capabilities, job.requirements));
  const { service_type, hardware } = job.requirements ?? {};
  for (const worker of told) {
    notify(worker.conn, {
      type: 'job_available', job_id: job.id, job_type: job.type, priority: job.priority,
      requirements_summary: { service_type: service_type ?? nothing(), gpu_memory_min: hardware?.gpu_memory_gb ?? nothing() },
    });
  }
  return told.length;
}

function requeue(job, message, delay = 0) {
  clearTimeout(job.timer);
  job.message = undefined;
  Object.assign(job, { worker: undefined, progress: undefined, startedAt: undefined, claimable: delay === 0 });
  move(job, 'queued', message);
  if (delay === 0) {
    offer(job);
    return serveWaiting();
  }
  job.timer = later(delay * 1000, () => {
    if (job.status !== 'queued') return;
    job.claimable = true;
    offer(job);
    serveWaiting();
  });
  return undefined;
}

/** Gives queued jobs to claims that wait for one. */
function serveWaiting() {
  for (const claim of waiting) {
    if (claim.until < now() || !claim.conn.open || workers.get(claim.conn.worker.id) !== claim.conn.worker) waiting.delete(claim);
    else if (assign(claim.conn, claim.message, claim.until - now())) waiting.delete(claim);
  }
}

/** Gives a worker what its claim asks for, as far as there is something; returns how many. */
function assign(conn, m, wait) {
  const { worker } = conn;
  const preferred = Array.isArray(m.preferred_types) ? m.preferred_types : [];
  const open = bug('double-assign') ? [...jobs.values()].filter((job) => job.status === 'queued' || job.status === 'assigned') : queue();
  const fitting = open.filter((job) => job.claimable && fits(worker.capabilities, job.requirements));
  const liked = (job) => preferred.includes(job.type);
  const busy = habit['one job each'] && [...jobs.values()].some((job) => isActive(job) && job.worker === worker.id);
  const others = habit['preferred only'] && preferred.length ? [] : fitting.filter((job) => !liked(job));
  const chosen = busy ? [] : [...fitting.filter(liked), ...others].slice(0, habit['one job each'] ? 1 : m.max_jobs ?? 1);
  for (const job of chosen) {
    clearTimeout(job.timer);
    job.worker = worker.id;
    if (habit['assigned twice']) move(job, 'assigned', text('Assigned'));
    else job.status = 'assigned';
    job.timer = later(Math.min(wait, 2 ** 31 - 1), () => {
      if (job.status === 'assigned' && job.worker === worker.id && !bug('forget-lapsed')) requeue(job, text('Nobody accepted the assignment'));
    });
    answer(conn, {
      type: 'job_assigned', job_id: job.id, worker_id: worker.id, job_type: job.type, priority: job.priority, payload: job.payload,
      requirements: job.requirements ?? pick({}, undefined), claim_timeout: wait,
    });
  }
  return chosen.length;
}

/** Now and then the state of the hub is news for everybody. */
function mention() {
  if (chance(0.2)) for (const conn of connections) if (conn.role && !conn.statistics) notify(conn, systemStatus());
}

function systemStatus() {
  const hourAgo = now() - 3600_000;
  return {
    type: 'system_status', active_workers: workers.size, pending_jobs: queue().length,
    active_jobs: [...jobs.values()].filter(isActive).length, completed_jobs_last_hour: finished.filter((t) => t > hourAgo).length,
    system_health: 'healthy', alerts: [],
  };
}

const handlers = {
  register_client(conn, m) {
    need(['job_client', 'monitor'].includes(m.client_type), 'client_type', 'Must be job_client or monitor', m.client_type);
    need(isText(m.client_id), 'client_id', 'Must be a string', m.client_id);
    conn.role = m.client_type === 'monitor' ? 'monitor' : 'client';
    conn.client = m.client_id;
    clients.set(m.client_id, conn);
    answer(conn, { type: 'client_registered', client_id: m.client_id, status: 'registered', assigned_connection_id: conn.id });
    if (conn.role === 'monitor' && chance(0.7)) notify(conn, systemStatus());
  },

  register_worker(conn, m) {
    need(isText(m.worker_id), 'worker_id', 'Must be a string', m.worker_id);
    need(m.capabilities === undefined || isObject(m.capabilities), 'capabilities', 'Must be an object', m.capabilities);
    if (options.token && m.token !== options.token) throw new Refusal('AUTH_FAILED', 'Authentication failed', { reason: 'Invalid worker token', worker_id: m.worker_id });
    clearTimeout(conn.worker?.deadline);
    conn.role = 'worker';
    conn.worker = { id: m.worker_id, conn, capabilities: m.capabilities ?? {}, listens: m.subscribe_to_jobs === true, status: m.status ?? 'idle' };
    workers.set(m.worker_id, conn.worker);
    answer(conn, { type: 'worker_registered', worker_id: m.worker_id, status: 'registered', assigned_connection_id: conn.id });
    if (odd) for (const job of queue()) if (job.claimable) offer(job, conn.worker);
  },

  submit_job(conn, m) {
    needRole(conn, 'client', 'monitor');
    need(isText(m.job_type), 'job_type', 'Must be a string', m.job_type);
    need(m.priority === undefined || isNumber(m.priority), 'priority', 'Must be a number', m.priority);
    need(m.payload === undefined || isObject(m.payload), 'payload', 'Must be an object', m.payload);
    need(m.requirements === undefined || isObject(m.requirements), 'requirements', 'Must be an object', m.requirements);
    const memory = m.requirements?.hardware?.gpu_memory_gb;
    need(memory === undefined || (isNumber(memory) && memory > 0), 'requirements.hardware.gpu_memory_gb', 'Must be a positive number', memory);
    const job = {
      id: newId('job'), type: m.job_type, priority: m.priority ?? 50, payload: m.payload ?? {}, requirements: m.requirements,
      customer: m.customer_id, owner: conn, order: order++, attempts: 0, claimable: true, followers: new Set(), status: undefined,
    };
    jobs.set(job.id, job);
    move(job, 'queued', undefined, { withOwner: odd });
    const position = queue().indexOf(job) + (habit['position from 0'] ? 0 : 1);
    const told = offer(job);
    answer(conn, {
      type: 'job_accepted', job_id: job.id, status: 'queued', position, estimated_start: told ? isoIn(30 * position) : nothing(),
      notified_workers: told,
    });
    serveWaiting();
    mention();
  },

  request_job_status(conn, m) {
    needRole(conn, 'client', 'monitor', 'worker');
    const job = needJob(m.job_id);
    answer(conn, {
      type: 'response_job_status', job_id: job.id, status: job.status, progress: job.progress ?? nothing(), worker_id: job.worker,
      started_at: job.startedAt ?? nothing(), estimated_completion: job.estimate ?? nothing(), message: job.message ?? nothing(),
    });
  },

  cancel_job(conn, m) {
    needRole(conn, 'client', 'monitor');
    const job = needJob(m.job_id);
    if (job.status !== 'queued' && !isActive(job)) throw new Refusal('NOT_CANCELLABLE', `The job is ${job.status}`, { job_id: job.id, status: job.status });
    clearTimeout(job.timer);
    const worker = isActive(job) ? workers.get(job.worker) : undefined;
    const told = { type: 'job_cancelled', job_id: job.id, status: 'cancelled', cancelled_at: now() };
    answer(conn, told);
    if (bug('cancel-in-words')) return;
    if (bug('silent-cancel')) return void (job.status = 'cancelled');
    if (worker && worker.conn !== conn) notify(worker.conn, { ...told, reason: m.reason });
    move(job, 'cancelled', m.reason);
  },

  claim_job(conn, m) {
    needRole(conn, 'worker');
    need(m.max_jobs === undefined || (Number.isInteger(m.max_jobs) && m.max_jobs > 0), 'max_jobs', 'Must be a positive integer', m.max_jobs);
    const wait = isNumber(m.claim_timeout) && m.claim_timeout > 0 ? m.claim_timeout : 30000;
    if (assign(conn, m, wait)) return;
    if (habit['claims wait']) waiting.add({ conn, message: m, until: now() + wait });
    else acknowledge(conn, m, 'no_jobs');
  },

  job_accepted_by_worker(conn, m) {
    const job = needOwnJob(conn, m);
    if (job.status !== 'assigned') throw new Refusal('NOT_ASSIGNED', `The job is ${job.status}`, { job_id: job.id });
    clearTimeout(job.timer);
    job.estimate = m.estimated_completion;
    if (!habit['assigned twice']) job.status = 'queued'; // so that the update says where it came from
    move(job, 'assigned', text('A worker has accepted the job'));
  },

  update_job_progress(conn, m) {
    const job = needOwnJob(conn, m);
    need(isNumber(m.progress) && m.progress >= 0 && m.progress <= 100, 'progress', 'Must be between 0 and 100', m.progress);
    clearTimeout(job.timer);
    job.startedAt ??= now();
    Object.assign(job, { progress: m.progress, estimate: m.estimated_completion ?? job.estimate, message: m.message });
    move(job, 'in_progress', m.message);
  },

  complete_job(conn, m) {
    const job = needOwnJob(conn, m);
    clearTimeout(job.timer);
    job.progress = 100;
    finished.push(now());
    answer(conn, { type: 'job_completed_ack', job_id: job.id, worker_id: conn.worker.id });
    for (const to of audience(job, 'completed')) {
      notify(to, {
        type: 'job_completed', job_id: job.id, status: 'completed', worker_id: job.worker, priority: job.priority,
        processing_time: m.processing_time ?? nothing(), result: m.result ?? nothing(),
      });
    }
    if (odd) move(job, 'completed', text('Done'));
    else job.status = 'completed';
    mention();
  },

  fail_job(conn, m) {
    const job = needOwnJob(conn, m);
    clearTimeout(job.timer);
    job.attempts += 1;
    const again = m.retry === true && job.attempts < MAX_ATTEMPTS;
    const delay = options['retry-delay'];
    answer(conn, { type: 'job_failed_ack', job_id: job.id, worker_id: conn.worker.id, retry_scheduled: again, retry_delay: again ? delay : nothing() });
    if (again && habit['failed meanwhile']) move(job, 'failed', m.error);
    if (again) requeue(job, m.error, delay);
    else move(job, 'failed', m.error);
  },

  worker_heartbeat(conn, m) {
    needRole(conn, 'worker');
    const { worker } = conn;
    worker.status = m.status ?? worker.status;
    const every = options['heartbeat-ms'];
    clearTimeout(worker.deadline);
    worker.deadline = later(every * 2, () => workers.get(worker.id) === worker && close(conn, 1000, 'no heartbeat'));
    answer(conn, { type: 'worker_heartbeat_ack', worker_id: worker.id, status: 'acknowledged', next_heartbeat_expected: now() + every });
  },

  worker_status(conn, m) {
    needRole(conn, 'worker');
    need(m.capabilities === undefined || isObject(m.capabilities), 'capabilities', 'Must be an object', m.capabilities);
    Object.assign(conn.worker.capabilities, m.capabilities);
    conn.worker.status = m.status ?? conn.worker.status;
  },

  subscribe_job(conn, m) {
    needRole(conn, 'client', 'monitor');
    const job = needJob(m.job_id);
    job.followers.add(conn);
    answer(conn, { type: 'subscription_confirmed', subscription_type: 'job', job_id: job.id });
  },

  subscribe_job_notifications(conn, m) {
    needRole(conn, 'client', 'monitor', 'worker');
    if (m.enabled === false) {
      conn.notifications.clear();
      return acknowledge(conn, m);
    }
    need(m.filters === undefined || isObject(m.filters), 'filters', 'Must be an object', m.filters);
    const { customer_id, job_types, priority_min, status } = m.filters ?? {};
    for (const [field, list] of Object.entries({ job_types, status })) need(list === undefined || Array.isArray(list), `filters.${field}`, 'Must be a list', list);
    need(priority_min === undefined || isNumber(priority_min), 'filters.priority_min', 'Must be a number', priority_min);
    const id = newId('sub');
    conn.notifications.clear(); // the newest subscription counts
    conn.notifications.set(id, { customer_id, job_types, priority_min, status });
    return answer(conn, { type: 'job_notifications_subscribed', subscription_id: id, filters_applied: { customer_id, job_types, priority_min, status } });
  },

  subscribe_stats(conn, m) {
    needRole(conn, 'client', 'monitor');
    clearInterval(conn.stats);
    conn.statistics = true; // who has said when it wants them gets them then
    if (m.enabled === false) return acknowledge(conn, m);
    const seconds = m.interval_seconds ?? 5;
    need(isNumber(seconds) && seconds > 0 && seconds <= 86400, 'interval_seconds', 'Must be a positive number', seconds);
    conn.stats = setInterval(() => turn(() => notify(conn, systemStatus())), seconds * 1000);
    return answer(conn, { type: 'subscription_confirmed', subscription_type: 'stats', update_interval: seconds, next_broadcast: now() + seconds * 1000 });
  },

  request_stats(conn) {
    needRole(conn, 'client', 'monitor');
    answer(conn, systemStatus());
  },

  chunked_message(conn, m) {
    need(isText(m.chunk_id), 'chunk_id', 'Must be a string', m.chunk_id);
    const first = habit['chunks from one'] ? 1 : 0;
    need(Number.isInteger(m.chunk_index) && m.chunk_index >= first, 'chunk_index', `Must be an integer from ${first}`, m.chunk_index);
    need(Number.isInteger(m.total_chunks) && m.total_chunks > 0, 'total_chunks', 'Must be a positive integer', m.total_chunks);
    need(m.chunk_index < m.total_chunks + (odd ? first : 1), 'chunk_index', 'Must be one of total_chunks', m.chunk_index);
    need(typeof m.data === 'string', 'data', 'Must be base64', m.data);
    const key = `${conn.id}\n${m.chunk_id}`;
    const parts = chunks.get(key) ?? new Map();
    parts.set(m.chunk_index, Buffer.from(m.data, 'base64'));
    chunks.set(key, parts);
    const size = [...parts.values()].reduce((sum, part) => sum + part.length, 0);
    if (parts.size < m.total_chunks && size <= MAX_ASSEMBLED) return;
    chunks.delete(key);
    need(size <= MAX_ASSEMBLED, 'data', 'Too much', size);
    const whole = Buffer.concat([...parts].sort(([a], [b]) => a - b).map(([, part]) => part));
    const digest = createHash('sha256').update(whole).digest();
    const given = String(m.data_hash ?? '').replace(/^sha256[-:]/, '');
    need(given.toLowerCase() === digest.toString('hex') || given === digest.toString('base64'), 'data_hash', 'Is not the SHA-256 of the data', m.data_hash);
    let message;
    try {
      message = JSON.parse(whole.toString());
    } catch {
      need(false, 'data', 'Is not a JSON message', null);
    }
    need(isObject(message), 'data', 'Is not a JSON message', null);
    answer(conn, { type: 'chunked_message_complete', chunk_id: m.chunk_id, total_size: whole.length, assembled_message: pick(message, {}) });
    handle(conn, { type: m.original_type, ...message }, whole.toString());
  },

  ping: (conn) => answer(conn, { type: 'pong' }),
  pong() {},
  ack() {},
  service_request: (conn, m) => acknowledge(conn, m),
  connector_ws_status(conn) {
    needRole(conn, 'worker');
  },
  disconnect(conn) {
    conn.notifications.clear();
    clearInterval(conn.stats);
    setTimeout(() => close(conn, 1000, 'bye'), odd ? below(100) : 0);
  },
};

function acknowledge(conn, m, status = 'processed') {
  answer(conn, { type: 'ack', message_id: isText(m.id) ? m.id : newId('msg'), original_type: m.type, status });
}

function receive(conn, content) {
  let message;
  try {
    message = JSON.parse(content);
  } catch {
    return refuse(conn, new Refusal('INVALID_JSON', 'The message is not JSON'), {});
  }
  if (!isObject(message) || !isText(message.type)) return refuse(conn, new Refusal('INVALID_MESSAGE', 'A message is an object with a type'), {});
  return handle(conn, message, content);
}

function handle(conn, message, content) {
  if (!Object.hasOwn(handlers, message.type) || message.type === 'chunked_message_complete') {
    return answer(conn, { type: 'unknown', content: text('Received unrecognized message type'), original_message: chance(0.5) ? `${content.slice(0, 60)}...` : content });
  }
  const before = effects.length;
  try {
    handlers[message.type](conn, message, content);
    if (effects.length === before ? chance(0.5) : chance(0.1)) if (!['ping', 'pong', 'ack'].includes(message.type)) acknowledge(conn, message);
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    refuse(conn, refusal, message);
  }
  return undefined;
}

function refuse(conn, refusal, message) {
  answer(conn, {
    type: 'error', error: text(refusal.message), error_code: refusal.code, details: refusal.details ?? pick({}, undefined, null),
    request_id: isText(message.id) ? message.id : undefined, job_id: isText(message.job_id) ? message.job_id : undefined,
  });
}

// ---------------------------------------------------------------- start and end

const server = serve({ came: greet, said: arrive, left: leave });
server.listen(options.port, '127.0.0.1', () => console.log(`ws://127.0.0.1:${server.address().port}`));

function stop() {
  server.close();
  for (const conn of [...connections]) {
    transmit(conn, { type: 'server_disconnect', timestamp: now(), reason: text('Server maintenance'), reconnect_after: now() + 60000, estimated_downtime: 60 });
    close(conn, 1001, 'going away');
  }
  setTimeout(() => process.exit(0), 300);
}
process.on('SIGUSR1', () => turn(() => {
  for (const conn of connections) {
    notify(conn, {
      type: 'system_alert', severity: 'warning', category: 'resource_constraint', message: text('Queue depth exceeding normal capacity'),
      details: { current_queue_depth: queue().length }, actions_recommended: [],
    });
  }
}));
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
