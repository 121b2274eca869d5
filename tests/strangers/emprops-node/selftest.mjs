#!/usr/bin/env node
// Self-test of hub.mjs: one conversation for each bug. Every conversation must be right with the plain hub and with
// every variant, and must be wrong with its bug.
//   node selftest.mjs [NAME...]     NAME: bugs and variants; without names: all
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { WebSocket } from 'ws';

const HUB = path.join(path.dirname(fileURLToPath(import.meta.url)), 'hub.mjs');
const SETTINGS = ['--retry-delay', '0.3'];
const BUG_DEADLINE = 1500, LONG_DEADLINE = 10000; // ms to wait for a message

class Wrong extends Error {}
const check = (ok, what) => { if (!ok) throw new Wrong(what); };
const same = (a, b, what) => check(isDeepStrictEqual(a, b), `${what}: ${short(a)} instead of ${short(b)}`);
const short = x => { const s = JSON.stringify(x) ?? 'undefined'; return s.length > 80 ? s.slice(0, 77) + '...' : s; };
const sleep = ms => new Promise(r => setTimeout(r, ms));
let serial = 0;

// ---------------------------------------------------------------------------------------------------------------
// A client

class Peer {
  constructor(t) { this.t = t; this.box = []; this.waiters = new Set(); this.ended = false; }
  open(options = {}) {
    this.ws = new WebSocket(this.t.url, options);
    this.t.peers.push(this);
    this.ws.on('message', d => {
      const m = JSON.parse(d.toString());
      if (m.type === 'ping') return;
      this.box.push(m);
      this.wake();
    });
    this.ws.on('close', () => { this.ended = true; this.wake(); });
    this.ws.on('error', e => { this.error = e; this.ended = true; this.wake(); });
    return this.take(m => m.type === 'connection_established', 'connection_established').then(() => this);
  }
  wake() { for (const f of [...this.waiters]) f(); }
  raw(text) { this.ws.send(text); }
  send(type, members = {}) { this.raw(JSON.stringify({ type, timestamp: Date.now(), ...members })); }
  take(pred, what) { // the first message not yet taken that fits
    return new Promise((resolve, reject) => {
      const done = f => { clearTimeout(timer); this.waiters.delete(look); f(); };
      const look = () => {
        const i = this.box.findIndex(pred);
        if (i >= 0) { const [m] = this.box.splice(i, 1); done(() => resolve(m)); }
        else if (this.ended) done(() => reject(new Wrong(`closed, no ${what}`)));
      };
      const timer = setTimeout(async () => { // a slow machine is no fault of the hub: let it answer something first
        await this.t.control('state').catch(() => {});
        await sleep(50);
        if (this.waiters.has(look)) done(() => reject(new Wrong(`no ${what}`)));
      }, this.t.deadline);
      this.waiters.add(look);
      look();
    });
  }
  type(type, pred = () => true) { return this.take(m => m.type === type && pred(m), type); }
  async sync() { this.send('ping'); await this.type('pong'); }
  async never(pred, what) { // call sync() of the acting peer first
    await this.sync();
    await sleep(30);
    check(!this.box.some(pred), `unwanted ${what}`);
  }
  close() {
    if (this.ws.readyState === WebSocket.CLOSED) return Promise.resolve();
    return new Promise(r => { this.ws.on('close', r); this.ws.close(); setTimeout(() => this.ws.terminate(), 1000).unref(); });
  }

  // client side
  async register(id, type = 'job_client') {
    this.send('register_client', { client_type: type, client_id: id, version: '1.0.0', capabilities: {}, permissions: type === 'monitor' ? ['view_all_jobs', 'view_system_stats'] : undefined });
    this.registered = await this.type('client_registered');
    return this;
  }
  job(members = {}) {
    const { service = this.t.service, component, memory, ...rest } = members;
    return {
      job_type: 'text_to_image', priority: 75, payload: { prompt: 'x' }, customer_id: `cust-${this.t.uid}`,
      requirements: { service_type: service, component, hardware: memory === undefined ? undefined : { gpu_memory_gb: memory } }, ...rest,
    };
  }
  async submit(members = {}) {
    this.send('submit_job', this.job(members));
    const m = await this.take(x => x.type === 'job_accepted' || x.type === 'error', 'job_accepted');
    same(m.type, 'job_accepted', 'answer to submit_job');
    this.accepted = m;
    return m.job_id;
  }
  update(id, status, pred = () => true) { return this.take(m => m.type === 'job_update' && m.job_id === id && m.status === status && pred(m), `job_update ${status}`); }
  completed(id) { return this.type('job_completed', m => m.job_id === id); }
  async watch(id) { this.send('subscribe_job', { job_id: id }); await this.sync(); }
  async notifications(filters) {
    this.send('subscribe_job_notifications', { enabled: true, filters });
    return this.type('job_notifications_subscribed');
  }

  // worker side
  async worker(members = {}) {
    const { services = [this.t.service], components = [], memory = 16, id = `worker-${++serial}-${this.t.uid}`, ...rest } = members;
    this.id = id;
    this.send('register_worker', {
      worker_id: id, capabilities: { services, components, hardware: { gpu_memory_gb: memory, gpu_model: 'RTX 4090' } },
      subscribe_to_jobs: true, status: 'idle', ...rest,
    });
    this.registered = await this.type('worker_registered', m => m.worker_id === id);
    return this;
  }
  ask(members = {}) { this.send('claim_job', { worker_id: this.id, max_jobs: 1, claim_timeout: 30000, ...members }); }
  async claim(members = {}) {
    this.ask(members);
    return this.take(m => m.type === 'job_assigned', 'job_assigned');
  }
  async claimLater(id) { // repeats the claim until the job comes
    const end = Date.now() + this.t.deadline;
    for (let i = 0; i < 8 || Date.now() < end; i++) {
      this.ask();
      await this.sync();
      const i = this.box.findIndex(m => m.type === 'job_assigned' && m.job_id === id);
      if (i >= 0) return this.box.splice(i, 1)[0];
      await sleep(100);
    }
    throw new Wrong('job is not assigned again');
  }
  accept(id) { this.send('job_accepted_by_worker', { job_id: id, worker_id: this.id }); }
  progress(id, progress, message = `at ${progress}`) { this.send('update_job_progress', { job_id: id, worker_id: this.id, progress, status: 'in_progress', message }); }
  completion(id, members = {}) { return { job_id: id, worker_id: this.id, processing_time: 67.5, result: { success: true, output_files: ['f'] }, ...members }; }
  async complete(id, members) { this.send('complete_job', this.completion(id, members)); return this.type('job_completed_ack'); }
  async failJob(id, retry) { this.send('fail_job', { job_id: id, worker_id: this.id, error: 'Service connection timeout', retry, error_details: {} }); return this.type('job_failed_ack', m => m.job_id === id); }
  async take1() { const m = await this.claim(); this.accept(m.job_id); return m; }
}

class Test { // one run of one conversation
  constructor(port, deadline) {
    this.port = port;
    this.url = `ws://127.0.0.1:${port}`;
    this.deadline = deadline;
    this.uid = `${process.pid}x${++serial}`;
    this.service = `svc-${this.uid}`;
    this.peers = [];
  }
  open(options) { return new Peer(this).open(options); }
  async client(id = `app-${++serial}-${this.uid}`, type) { return (await this.open()).register(id, type); }
  async worker(members) { return (await this.open()).worker(members); }
  async control(name, body = {}) {
    const r = await fetch(`http://127.0.0.1:${this.port}/control/${name}`, { method: 'POST', body: JSON.stringify(body) });
    return r.json();
  }
  async leave(peer) { // only in conversations that run alone
    const before = (await this.control('state')).connections;
    await peer.close();
    const end = Date.now() + 5000;
    while ((await this.control('state')).connections >= before && Date.now() < end) await sleep(10);
  }
  chunks(message, n, id) {
    const all = Buffer.from(JSON.stringify(message));
    const size = Math.ceil(all.length / n);
    const hash = crypto.createHash('sha256').update(all).digest('hex');
    return Array.from({ length: n }, (_, i) => ({
      chunk_id: id, chunk_index: i + 1, total_chunks: n, data: all.subarray(i * size, (i + 1) * size).toString('base64'),
      data_hash: hash, original_type: message.type,
    }));
  }
  async echo(payloadText) { // the payload as a worker gets it
    const c = await this.client(), w = await this.worker();
    c.raw(JSON.stringify({ type: 'submit_job', timestamp: Date.now(), ...c.job() }).replace('{"prompt":"x"}', () => payloadText));
    await c.type('job_accepted');
    return (await w.claim()).payload;
  }
  async running(members) { // client, worker, a job accepted by the worker
    const c = await this.client(), w = await this.worker(), id = await c.submit(members);
    await w.take1();
    await c.update(id, 'assigned');
    return { c, w, id };
  }
}

// ---------------------------------------------------------------------------------------------------------------
// Conversations, each named after its bug. alone: not beside others; last: afterwards all connections are gone.

const TALKS = new Map();
const talk = (name, run, options = {}) => TALKS.set(name, { name, run, ...options });
const alone = { alone: true };

// history

talk('ping-unanswered-after-malformed', async t => {
  const c = await t.client();
  await c.sync();
  c.raw('{"type":');
  await c.type('error');
  await c.sync();
});

talk('second-capabilities-ignored', async t => {
  const c = await t.client(), w = await t.worker();
  for (const extra of ['-two', '-three']) {
    const services = [t.service, t.service + extra];
    w.send('worker_status', { worker_id: w.id, status: 'idle', capabilities: { services, components: [] }, current_job_id: null, available_slots: 2 });
    await w.sync();
    const id = await c.submit({ service: t.service + extra });
    same((await w.claim()).job_id, id, 'job_id');
  }
});

talk('job-status-cached', async t => {
  const { c, w, id } = await t.running();
  for (const p of [10, 60]) {
    w.progress(id, p);
    await c.update(id, 'in_progress', m => m.progress === p);
    c.send('request_job_status', { job_id: id });
    const m = await c.type('response_job_status');
    same([m.progress, m.message], [p, `at ${p}`], 'progress, message');
  }
});

talk('cancel-refused-after-error', async t => {
  const c = await t.client(), id = await c.submit();
  c.send('cancel_job', { job_id: `none-${t.uid}`, reason: '' });
  await c.type('error');
  c.send('cancel_job', { job_id: id, reason: 'x' });
  await c.type('job_cancelled', m => m.job_id === id);
});

talk('second-retry-lost', async t => {
  const c = await t.client(), w = await t.worker(), id = await c.submit();
  for (let i = 0; i < 2; i++) {
    await w.claimLater(id);
    w.accept(id);
    same((await w.failJob(id, true)).retry_scheduled, true, 'retry_scheduled');
  }
  await w.claimLater(id);
});

talk('resubscription-silent', async t => {
  const c = await t.client(), s = await t.client(), w = await t.worker();
  const filters = { customer_id: `cust-${t.uid}` };
  await s.notifications(filters);
  s.send('subscribe_job_notifications', { enabled: false });
  await s.sync();
  await s.notifications(filters);
  const id = await c.submit();
  await w.take1();
  w.progress(id, 5);
  await s.update(id, 'in_progress');
});

talk('stats-frozen', async t => {
  const c = await t.client(), stats = async () => {
    c.send('request_stats', { include_sections: ['jobs', 'workers'] });
    return (await c.type('system_status')).pending_jobs;
  };
  const before = await stats();
  await c.submit();
  same(await stats(), before + 1, 'pending_jobs');
}, alone);

talk('returning-worker-not-told', async t => {
  const c = await t.client(), first = await t.worker();
  await t.leave(first);
  const again = await t.worker({ id: first.id });
  const id = await c.submit();
  await again.type('job_available', m => m.job_id === id);
}, alone);

talk('retried-job-completion-silent', async t => {
  const { c, w, id } = await t.running();
  await w.failJob(id, true);
  await w.claimLater(id);
  w.accept(id);
  await w.complete(id);
  await c.completed(id);
});

talk('cancelled-retry-returns', async t => {
  const { c, w, id } = await t.running();
  const ack = await w.failJob(id, true);
  c.send('cancel_job', { job_id: id, reason: 'x' });
  await c.type('job_cancelled', m => m.job_id === id);
  await sleep(ack.retry_delay * 1000 + 100);
  w.ask();
  await w.never(m => m.type === 'job_assigned', 'job_assigned of a cancelled job');
});

talk('submit-answer-cached', async t => {
  const a = await t.client(), b = await t.client();
  check(await a.submit({ id: `1-${t.uid}` }) !== await b.submit({ id: `1-${t.uid}` }), 'one job_id for two jobs');
});

// several

talk('max-jobs-overrun', async t => {
  const c = await t.client(), w = await t.worker();
  for (let i = 0; i < 3; i++) await c.submit();
  await w.claim({ max_jobs: 2 });
  await w.type('job_assigned');
  await w.never(m => m.type === 'job_assigned', 'third job_assigned');
});

talk('fifth-subscriber-evicts-first', async t => {
  const { w, id } = await t.running();
  const s = [];
  for (let i = 0; i < 5; i++) { s.push(await t.client()); await s[i].watch(id); }
  w.progress(id, 20);
  for (const x of s) await x.update(id, 'in_progress', m => m.progress === 20);
});

talk('second-job-replaces-first', async t => {
  const c = await t.client(), w = await t.worker(), s = await t.client();
  const ids = [await c.submit(), await c.submit()];
  for (const id of ids) await s.watch(id);
  for (const id of ids) { const m = await w.take1(); w.progress(m.job_id, 20); }
  for (const id of ids) await s.update(id, 'in_progress', m => m.progress === 20);
});

talk('one-off-all-off', async t => {
  const { w, id } = await t.running();
  const a = await t.client(), b = await t.client();
  for (const s of [a, b]) await s.notifications({ customer_id: `cust-${t.uid}` });
  a.send('subscribe_job_notifications', { enabled: false });
  await a.sync();
  w.progress(id, 20);
  await b.update(id, 'in_progress');
}, alone);

talk('sixth-submit-unanswered', async t => {
  const c = await t.client(), ids = new Set();
  for (let i = 0; i < 6; i++) c.send('submit_job', c.job());
  for (let i = 0; i < 6; i++) ids.add((await c.type('job_accepted')).job_id);
  same(ids.size, 6, 'different job ids');
});

talk('subscriber-leave-drops-rest', async t => {
  const { w, id } = await t.running();
  const a = await t.client(), b = await t.client();
  for (const s of [a, b]) await s.watch(id);
  await t.leave(a);
  w.progress(id, 20);
  await b.update(id, 'in_progress');
}, alone);

talk('notified-workers-overcounted', async t => {
  const c = await t.client(), told = await t.worker(), untold = await t.worker({ subscribe_to_jobs: false });
  const id = await c.submit();
  await told.type('job_available', m => m.job_id === id);
  await untold.never(m => m.type === 'job_available', 'job_available');
  same(c.accepted.notified_workers, 1, 'notified_workers');
});

talk('interleaved-chunks-lost', async t => {
  const c = await t.client();
  const [a, b] = ['a', 'b'].map(n => t.chunks({ type: 'ping', timestamp: 1, note: n.repeat(50) }, 2, `${n}-${t.uid}`));
  for (const x of [a[0], b[0], a[1], b[1]]) c.send('chunked_message', x);
  for (const x of [a, b]) await c.type('chunked_message_complete', m => m.chunk_id === x[0].chunk_id);
});

talk('job-assigned-twice', async t => {
  const c = await t.client(), w = [await t.worker(), await t.worker()];
  await c.submit();
  for (const x of w) x.ask();
  for (const x of w) await x.sync();
  await sleep(30);
  same(w.flatMap(x => x.box.filter(m => m.type === 'job_assigned')).length, 1, 'assignments of one job');
});

talk('later-job-types-ignored', async t => {
  const s = await t.client();
  await s.notifications({ customer_id: `cust-${t.uid}`, job_types: ['text_to_image', 'upscaling'] });
  const { w, id } = await t.running({ job_type: 'upscaling' });
  w.progress(id, 20);
  await s.update(id, 'in_progress');
});

talk('fourth-chunk-set-stalls', async t => {
  const c = await t.client();
  const set = n => t.chunks({ type: 'ping', timestamp: 1, note: n }, 2, `${n}-${t.uid}`);
  for (const n of ['a', 'b', 'c']) c.send('chunked_message', set(n)[0]);
  for (const x of set('d')) c.send('chunked_message', x);
  await c.type('chunked_message_complete', m => m.chunk_id === `d-${t.uid}`);
  for (const n of ['a', 'b', 'c']) c.send('chunked_message', set(n)[1]);
  for (const n of ['a', 'b', 'c']) await c.type('chunked_message_complete', m => m.chunk_id === `${n}-${t.uid}`);
});

// identity

talk('ack-names-latest-job', async t => {
  const c = await t.client(), w = await t.worker();
  await c.submit();
  await c.submit();
  const first = (await w.take1()).job_id;
  await w.take1();
  same((await w.complete(first)).job_id, first, 'job_id');
});

const twoWorkers = async (t, ids) => { // each claims and gets its job
  const c = await t.client();
  const w = [];
  for (const id of ids) w.push(await t.worker({ id }));
  for (const x of w) {
    await c.submit();
    same((await x.claim()).worker_id, x.id, 'worker_id');
  }
};
talk('worker-ids-cut-at-32', t => twoWorkers(t, ['one', 'two'].map(n => `worker-${t.uid}-`.padEnd(32, 'x') + n)));
talk('worker-ids-normalised', t => twoWorkers(t, ['\u00e9', 'e\u0301'].map(n => `worker-${t.uid}-${n}`)));

talk('client-ids-folded', async t => {
  for (const id of [`App-${t.uid}`, `app-${t.uid}`]) same((await t.client(id)).registered.client_id, id, 'client_id');
});

talk('update-names-newest-worker', async t => {
  const { c, w, id } = await t.running();
  await t.worker();
  w.progress(id, 20);
  same((await c.update(id, 'in_progress')).worker_id, w.id, 'worker_id');
});

talk('updates-follow-client-id', async t => {
  const a = await t.client(`same-${t.uid}`), w = await t.worker(), id = await a.submit();
  const b = await t.client(`same-${t.uid}`);
  await w.take1();
  await w.complete(id);
  await a.completed(id);
  await b.never(m => m.job_id === id, 'notification');
});

talk('connection-id-shared', async t => {
  const ids = [];
  for (let i = 0; i < 2; i++) ids.push((await t.client(`same-${t.uid}`)).registered.assigned_connection_id);
  check(ids[0] !== ids[1], 'one assigned_connection_id for two connections');
});

talk('chunks-shared-across-connections', async t => {
  const peers = [await t.client(), await t.client()];
  const messages = ['a', 'b'].map(n => ({ type: 'ping', timestamp: 1, note: n.repeat(60) }));
  const sets = messages.map(m => t.chunks(m, 2, `chunk-${t.uid}`));
  for (const [p, i] of [[0, 0], [1, 1], [0, 1], [1, 0]]) {
    peers[p].send('chunked_message', sets[p][i]);
    await sleep(10);
  }
  for (const p of [0, 1]) same((await peers[p].type('chunked_message_complete')).assembled_message, messages[p], 'assembled_message');
});

talk('error-names-foreign-request', async t => {
  const a = await t.client(), b = await t.client();
  b.send('request_stats', { id: `b-${t.uid}` });
  await b.type('system_status');
  a.send('submit_job', a.job({ memory: -1, id: `a-${t.uid}` }));
  same((await a.type('error')).request_id, `a-${t.uid}`, 'request_id');
}, alone);

talk('failed-ack-names-first-worker', async t => {
  const c = await t.client(), id = await c.submit();
  for (let i = 0; i < 2; i++) {
    const w = await t.worker();
    await w.claimLater(id);
    w.accept(id);
    same((await w.failJob(id, true)).worker_id, w.id, 'worker_id');
  }
});

talk('customer-filter-folded', async t => {
  const s = await t.client();
  await s.notifications({ customer_id: `Cust-${t.uid}` });
  const { c, w, id } = await t.running();
  w.progress(id, 20);
  await c.update(id, 'in_progress');
  await s.never(m => m.type === 'job_update', 'job_update of another customer');
});

// neighbours

talk('open-chunks-block-others', async t => {
  const a = await t.client(), b = await t.client();
  a.send('chunked_message', t.chunks({ type: 'ping', timestamp: 1 }, 2, `a-${t.uid}`)[0]);
  await a.sync();
  for (const x of t.chunks({ type: 'ping', timestamp: 1 }, 2, `b-${t.uid}`)) b.send('chunked_message', x);
  await b.type('chunked_message_complete');
});

talk('gone-worker-keeps-claim', async t => {
  const c = await t.client(), a = await t.worker(), b = await t.worker(), id = await c.submit();
  await a.claim({ claim_timeout: 300 });
  await a.close();
  await b.claimLater(id);
});

talk('error-drops-neighbour-update', async t => {
  const { c, w, id } = await t.running();
  const e = await t.client();
  e.send('cancel_job', { job_id: `none-${t.uid}` });
  await e.type('error');
  w.progress(id, 20);
  await c.update(id, 'in_progress', m => m.progress === 20);
}, alone);

talk('monitor-leave-silences-alerts', async t => {
  const [a, b] = [await t.client(undefined, 'monitor'), await t.client(undefined, 'monitor')];
  for (const m of [a, b]) {
    m.send('subscribe_stats', { enabled: true, interval_seconds: 60, include_sections: ['system'] });
    await m.type('subscription_confirmed');
  }
  await t.leave(a);
  await t.control('alert', { message: t.uid });
  await b.type('system_alert', m => m.message === t.uid);
  await t.control('clear-alerts');
}, alone);

talk('unaccepted-claim-blocks', async t => {
  const c = await t.client(), a = await t.worker(), b = await t.worker();
  await c.submit();
  await c.submit();
  await a.claim();
  await b.claim();
});

talk('stats-stop-with-neighbour', async t => {
  const a = await t.client(), b = await t.client();
  for (const m of [a, b]) {
    m.send('subscribe_stats', { enabled: true, interval_seconds: 1, include_sections: ['jobs'] });
    same((await m.type('subscription_confirmed')).update_interval, 1, 'update_interval');
  }
  await t.leave(a);
  await b.sync();
  b.box = [];
  await b.type('system_status');
}, alone);

talk('cancel-loses-next-job', async t => {
  const a = await t.client(), b = await t.client(), w = await t.worker();
  const first = await a.submit(), second = await b.submit();
  a.send('cancel_job', { job_id: first });
  await a.type('job_cancelled');
  same((await w.claim()).job_id, second, 'job_id');
}, alone);

talk('leave-cancels-customer-jobs', async t => {
  const { c, w, id } = await t.running();
  await w.complete(id);
  const b = await t.client(), second = await b.submit();
  await t.leave(c);
  same((await w.claim()).job_id, second, 'job_id');
}, alone);

talk('silent-connections-block-registration', async t => {
  for (let i = 0; i < 3; i++) await t.open();
  await t.client();
});

talk('busy-worker-hides-job', async t => {
  const c = await t.client(), busy = await t.worker({ status: 'busy' }), idle = await t.worker();
  const id = await c.submit();
  await idle.type('job_available', m => m.job_id === id);
  await busy.sync();
});

talk('gone-submitter-blocks-ack', async t => {
  const { c, w, id } = await t.running();
  await t.leave(c);
  same((await w.complete(id)).job_id, id, 'job_id');
}, alone);

// values

talk('progress-zero-omitted', async t => {
  const { c, w, id } = await t.running();
  w.progress(id, 0);
  same((await c.update(id, 'in_progress')).progress, 0, 'progress');
});

talk('payload-null-dropped', async t => same(await t.echo('{"a":null,"b":[null]}'), { a: null, b: [null] }, 'payload'));
talk('payload-markup-escaped', async t => same(await t.echo('{"prompt":"a<b & c>d"}'), { prompt: 'a<b & c>d' }, 'payload'));
talk('payload-cut-at-nul', async t => same(await t.echo('{"prompt":"a\\u0000b"}'), { prompt: 'a\0b' }, 'payload'));
talk('numeric-text-converted', async t => same(await t.echo('{"seed":"007","n":7}'), { seed: '007', n: 7 }, 'payload'));
talk('proto-member-lost', async t => {
  const payload = await t.echo('{"__proto__":"x","constructor":"y"}');
  check(Object.hasOwn(payload, '__proto__') && Object.hasOwn(payload, 'constructor'), 'member of the payload is lost');
});

talk('message-cut-at-255', async t => {
  const { c, w, id } = await t.running();
  w.progress(id, 1, 'm'.repeat(300));
  same((await c.update(id, 'in_progress')).message?.length, 300, 'length of message');
});

talk('priority-zero-replaced', async t => {
  const c = await t.client(), w = await t.worker();
  await c.submit({ priority: 0 });
  same((await w.claim()).priority, 0, 'priority');
});

talk('empty-message-keeps-old', async t => {
  const { c, w, id } = await t.running();
  for (const [p, text] of [[1, 'first'], [2, '']]) {
    w.progress(id, p, text);
    same((await c.update(id, 'in_progress', m => m.progress === p)).message, text, 'message');
  }
});

talk('equal-gpu-memory-refused', async t => {
  const c = await t.client(), w = await t.worker({ memory: 8 });
  await c.submit({ memory: 8 });
  await w.claim();
});

talk('prototype-type-unanswered', async t => {
  const c = await t.client();
  for (const type of ['invalid_type', 'constructor', 'toString']) {
    c.send(type, { note: '\u{1f600}' });
    same(JSON.parse((await c.type('unknown')).original_message).type, type, 'type in original_message');
  }
});

talk('short-processing-time-zero', async t => {
  const { c, w, id } = await t.running();
  await w.complete(id, { processing_time: 0.25 });
  same((await c.completed(id)).processing_time, 0.25, 'processing_time');
});

// equivalents

const pinged = async (t, text) => { const c = await t.client(); c.raw(text); await c.type('pong'); };
talk('type-last-unknown', t => pinged(t, '{"timestamp":1705312345000,"type":"ping"}'));
talk('escaped-type-unknown', t => pinged(t, '{"type":"\\u0070ing","timestamp":1705312345000}'));
talk('leading-space-malformed', t => pinged(t, '\r\n\t {"type" : "ping" ,\n"timestamp":1705312345000 }\n'));

talk('three-frames-malformed', async t => {
  const c = await t.client();
  const text = '{"type":"ping","timestamp":1705312345000}';
  c.ws.send(text.slice(0, 5), { fin: false });
  c.ws.send(text.slice(5, 20), { fin: false });
  c.ws.send(text.slice(20), { fin: true });
  await c.type('pong');
});

talk('exponent-refused', async t => {
  const c = await t.client(), w = await t.worker();
  c.raw(JSON.stringify({ type: 'submit_job', timestamp: Date.now(), ...c.job({ priority: 71 }) }).replace('"priority":71', '"priority":7.1e1'));
  await c.type('job_accepted');
  same((await w.claim()).priority, 71, 'priority');
});

talk('chunks-in-arrival-order', async t => {
  const c = await t.client(), message = { type: 'ping', timestamp: 1, note: '0123456789'.repeat(10) };
  for (const x of t.chunks(message, 3, `chunk-${t.uid}`).reverse()) c.send('chunked_message', x);
  same((await c.type('chunked_message_complete')).assembled_message, message, 'assembled_message');
});

talk('later-services-unmatched', async t => {
  const c = await t.client(), w = await t.worker({ services: [`other-${t.uid}`, t.service] });
  await c.submit();
  await w.claim();
});

talk('escaped-job-id-not-found', async t => {
  const c = await t.client(), id = await c.submit();
  const spelled = [...Array(id.length).keys()].map(i => '\\u' + id.charCodeAt(i).toString(16).padStart(4, '0')).join('');
  c.raw(`{"type":"request_job_status","job_id":"${spelled}","timestamp":1705312345000}`);
  same((await c.type('response_job_status')).job_id, id, 'job_id');
});

talk('connection-list-refused', t => new Promise((resolve, reject) => {
  const socket = net.connect(t.port, '127.0.0.1', () => socket.write(
    `GET / HTTP/1.1\r\nHost: 127.0.0.1:${t.port}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n` +
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n'));
  socket.setTimeout(t.deadline, () => { socket.destroy(); reject(new Wrong('no answer to the handshake')); });
  socket.on('error', reject);
  socket.once('data', d => {
    socket.destroy();
    if (d.toString().startsWith('HTTP/1.1 101')) resolve(); else reject(new Wrong(`handshake: ${d.toString().split('\r')[0]}`));
  });
}));

talk('escapes-kept-in-payload', async t => same(await t.echo('{"prompt":"caf\\u00e9"}'), { prompt: 'caf\u00e9' }, 'payload'));

talk('second-section-ignored', async t => {
  const c = await t.client();
  c.send('request_stats', { include_sections: ['workers', 'jobs'] });
  const m = await c.type('system_status');
  same([typeof m.active_workers, typeof m.pending_jobs], ['number', 'number'], 'types of active_workers, pending_jobs');
});

// one-of-many

talk('connector-status-unknown', async t => {
  const w = await t.worker();
  w.send('connector_ws_status', { worker_id: w.id, connector_type: 'comfyui', status: 'connected', details: {} });
  w.send('service_request', { worker_id: w.id, job_id: 'j', service_type: 'comfyui', endpoint: '/x', method: 'POST', url: 'http://localhost/x', payload: {} });
  await w.never(m => m.type === 'unknown', 'unknown');
});

talk('chunk-complete-in-seconds', async t => {
  const c = await t.client();
  for (const x of t.chunks({ type: 'ping', timestamp: 1 }, 2, `chunk-${t.uid}`)) c.send('chunked_message', x);
  const m = await c.type('chunked_message_complete');
  check(Math.abs(m.timestamp - Date.now()) < 3600e3, `timestamp ${m.timestamp}`);
});

talk('second-monitor-unconfirmed', async t => {
  for (const n of [1, 2]) await t.client(`admin-${n}-${t.uid}`, 'monitor');
});

talk('failure-unannounced', async t => {
  const { c, w, id } = await t.running();
  same((await w.failJob(id, false)).retry_scheduled, false, 'retry_scheduled');
  await c.take(m => m.type === 'job_update' && m.job_id === id && !['queued', 'assigned', 'in_progress'].includes(m.status), 'job_update about the failure');
});

const cancelled = async t => { // what a subscriber hears of a cancellation in progress
  const { c, w, id } = await t.running();
  const s = await t.client();
  await s.watch(id);
  w.progress(id, 20);
  await s.update(id, 'in_progress', m => m.progress === 20);
  c.send('cancel_job', { job_id: id, reason: 'x' });
  await c.type('job_cancelled');
  return s.take(m => m.job_id === id && m.status === 'cancelled', 'notification of the cancellation');
};
talk('cancel-unannounced', cancelled);
talk('cancel-previous-status-wrong', async t => same((await cancelled(t)).previous_status, 'in_progress', 'previous_status'));

talk('chunked-completion-dropped', async t => {
  const { c, w, id } = await t.running();
  const message = { type: 'complete_job', timestamp: Date.now(), ...w.completion(id) };
  for (const x of t.chunks(message, 2, `chunk-${t.uid}`)) w.send('chunked_message', x);
  await w.type('chunked_message_complete');
  same((await w.type('job_completed_ack')).job_id, id, 'job_id');
  await c.completed(id);
});

talk('priority-min-ignored', async t => {
  const s = await t.client();
  await s.notifications({ customer_id: `cust-${t.uid}`, priority_min: 70 });
  const { c, w, id } = await t.running({ priority: 69 });
  w.progress(id, 20);
  await c.update(id, 'in_progress');
  await s.never(m => m.type === 'job_update', 'job_update of low priority');
});

talk('component-not-required', async t => {
  const c = await t.client(), w = await t.worker({ components: ['upscaling'] });
  await c.submit({ component: 'text-to-image-xl' });
  w.ask();
  await w.never(m => m.type === 'job_assigned', 'job_assigned without the component');
});

talk('shutdown-untold-to-workers', async t => {
  const c = await t.client(), w = await t.worker();
  await t.control('shutdown', { reason: 'Server maintenance', estimated_downtime: 60 });
  for (const p of [c, w]) check((await p.type('server_disconnect')).reconnect_after > Date.now(), 'reconnect_after in the past');
}, { alone: true, last: true });

talk('completion-passes-status-filter', async t => {
  const s = await t.client();
  await s.notifications({ customer_id: `cust-${t.uid}`, status: ['in_progress'] });
  const { c, w, id } = await t.running();
  await w.complete(id);
  await c.completed(id);
  await s.never(m => m.type === 'job_completed', 'job_completed');
});

// ---------------------------------------------------------------------------------------------------------------
// Hubs and runs

const running = new Set();

function startHub(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [HUB, ...SETTINGS, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(child);
    let out = '', err = '';
    child.stderr.on('data', d => { err = (err + d).slice(-2000); });
    child.stdout.on('data', d => {
      out += d;
      const m = /^ws:\/\/127\.0\.0\.1:(\d+)\n/.exec(out);
      if (m) resolve({ child, port: Number(m[1]), errors: () => err });
    });
    child.on('exit', code => { running.delete(child); reject(new Error(`hub ended with ${code}: ${err}`)); });
  });
}
function stopHub({ child }) {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve('ended by itself');
  return new Promise(r => {
    const hard = setTimeout(() => child.kill('SIGKILL'), 30000);
    child.on('exit', (code, signal) => { clearTimeout(hard); r(code === 0 ? null : `exit ${code ?? signal}`); });
    child.kill('SIGTERM');
  });
}
process.on('exit', () => { for (const c of running) c.kill('SIGKILL'); });
for (const s of ['SIGINT', 'SIGTERM']) process.on(s, () => process.exit(1));

async function runTalk(t, port, deadline) { // null, or what was wrong
  const test = new Test(port, deadline);
  try { await t.run(test); return null; }
  catch (e) { return e instanceof Wrong ? e.message : `!${e.stack}`; }
  finally { await Promise.all(test.peers.map(p => p.close())); }
}

async function pool(n, items, f) {
  const rest = [...items];
  await Promise.all(Array.from({ length: n }, async () => { while (rest.length) await f(rest.shift()); }));
}

async function allTalks(hub, talks) { // the names of the conversations that went wrong
  const wrong = [];
  const one = async t => {
    const bad = await runTalk(t, hub.port, LONG_DEADLINE);
    if (bad) wrong.push(`${t.name} (${bad})`);
  };
  await pool(40, talks.filter(t => !t.alone), one);
  for (const t of talks.filter(t => t.alone && !t.last)) await one(t);
  for (const t of talks.filter(t => t.last)) await one(t);
  return wrong;
}

async function main() {
  const names = process.argv.slice(2);
  const list = await new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [HUB, '--list'], { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', d => { out += d; });
    child.on('close', () => { try { resolve(JSON.parse(out)); } catch (e) { reject(e); } });
  });
  for (const n of names) {
    if (n !== 'plain' && ![...list.bugs, ...list.variants].some(x => x.name === n)) { console.error(`no bug or variant named ${n}`); process.exit(2); }
  }
  const wanted = x => !names.length || names.includes(x.name);
  const bugs = list.bugs.filter(wanted), variants = list.variants.filter(wanted);
  let failures = 0;
  const line = (kind, name, bad, text) => {
    if (bad) failures++;
    console.log(`${bad ? 'FAIL' : 'ok  '} ${kind} ${name}: ${text}`);
  };

  const all = [...TALKS.values()];
  const forBugs = names.length && !names.includes('plain') ? all.filter(t => bugs.some(b => b.name === t.name)) : all;
  const plain = await startHub([]);
  const wrongPlain = await allTalks(plain, forBugs);
  const end = await stopHub(plain);
  line('hub', 'plain', wrongPlain.length || end || plain.errors(), wrongPlain.join('; ') || end || plain.errors() || `${forBugs.length} conversations right`);

  await pool(8, bugs, async b => {
    const t = TALKS.get(b.name);
    if (!t) { line('bug', b.name, true, 'no conversation'); return; }
    const hub = await startHub(['--bug', b.name]);
    const bad = await runTalk(t, hub.port, BUG_DEADLINE);
    await stopHub(hub);
    line('bug', b.name, !bad || bad.startsWith('!'), bad ?? 'not seen');
  });

  await pool(4, variants, async v => {
    const hub = await startHub(['--variant', v.name]);
    const wrong = await allTalks(hub, all);
    const how = await stopHub(hub);
    line('variant', v.name, wrong.length || how || hub.errors(), wrong.join('; ') || how || hub.errors() || `${all.length} conversations right`);
  });

  console.log(`${bugs.length} bugs, ${variants.length} variants, ${failures} failures`);
  process.exit(failures ? 1 : 0);
}

main().catch(e => { console.error(e); process.exit(1); });
