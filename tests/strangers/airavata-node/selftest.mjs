#!/usr/bin/env node
// Self-test of hub.mjs: selftest.mjs [--cross] [NAME...]
// For every bug: its conversation succeeds with the correct hub and fails with the bug.
// For every variant: all conversations succeed.
// --cross: for every bug name the other conversations that fail with it as well (information only).

import { spawn, execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import crypto from 'node:crypto';
import http from 'node:http';
import path from 'node:path';
import WebSocket from 'ws';

const HUB = path.join(path.dirname(fileURLToPath(import.meta.url)), 'hub.mjs');
const SECRET = 'airavata-secret';

class Differs extends Error {} // the hub does not do what the document says
function check(condition, text) { if (!condition) throw new Differs(text); }
function equal(got, wanted, text) {
  const absent = (name, value) => (value === undefined ? '(absent)' : value);
  const [g, w] = [JSON.stringify(got, absent), JSON.stringify(wanted, absent)];
  if (g !== w) throw new Differs(`${text}: ${String(g).slice(0, 120)} instead of ${String(w).slice(0, 120)}`);
}

let serial = 0;
function uid(prefix = 'x') { serial += 1; return `${prefix}-${serial.toString(36)}-${crypto.randomBytes(3).toString('hex')}`; }

function jwt(user, { secret = SECRET, exp = 3600 } = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const body = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + exp, jti: uid('t') })}`;
  return `${body}.${crypto.createHmac('sha256', secret).update(body).digest('base64url')}`;
}

// ---------------------------------------------------------------------------
// One hub process

const running = new Set(); // hub processes of this run
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => { for (const child of running) child.kill('SIGTERM'); process.exit(1); });
}

class Hub {
  static async start(args, perUser) {
    const hub = new Hub();
    hub.perUser = perUser;
    hub.child = spawn(process.execPath, [HUB, '--ping-interval', '0', '--status-interval', '0', '--per-ip', '500', '--per-user', String(perUser), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(hub.child);
    hub.child.on('exit', () => running.delete(hub.child));
    hub.errors = '';
    hub.child.stderr.on('data', (d) => { hub.errors += d; });
    hub.ended = new Promise((resolve) => { hub.child.on('exit', (code, signal) => resolve({ code, signal })); });
    hub.url = await new Promise((resolve, reject) => {
      let out = '';
      hub.child.stdout.on('data', (d) => { out += d; if (out.includes('\n')) resolve(out.split('\n')[0]); });
      hub.child.on('exit', () => reject(new Error(`hub ended at its start: ${hub.errors}`)));
      hub.child.on('error', reject);
    });
    hub.port = Number(new URL(hub.url).port);
    hub.agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
    return hub;
  }

  control(name, body = {}) {
    return new Promise((resolve, reject) => {
      const data = Buffer.from(JSON.stringify(body));
      const request = http.request({
        host: '127.0.0.1', port: this.port, path: `/control/${name}`, method: 'POST', agent: this.agent,
        headers: { 'Content-Type': 'application/json', 'Content-Length': data.length },
      }, (response) => {
        const chunks = [];
        response.on('data', (c) => chunks.push(c));
        response.on('end', () => {
          const answer = Buffer.concat(chunks).toString();
          if (response.statusCode !== 200) reject(new Error(`control ${name}: ${response.statusCode} ${answer}`));
          else resolve(JSON.parse(answer));
        });
      });
      request.on('error', reject);
      request.end(data);
    });
  }

  async stop() {
    this.agent.destroy();
    this.child.kill('SIGTERM');
    const late = setTimeout(() => this.child.kill('SIGKILL'), 30000);
    const end = await this.ended;
    clearTimeout(late);
    return end;
  }
}

// ---------------------------------------------------------------------------
// One client connection

class Client {
  constructor(test, ws) {
    this.test = test;
    this.ws = ws;
    this.received = []; // { text, message }
    this.waiting = [];
    this.closed = null;
    ws.on('message', (bytes, binary) => {
      const text = bytes.toString('utf8');
      let message = null;
      try { message = binary ? null : JSON.parse(text); } catch { /* stays null */ }
      this.received.push({ text, message });
      this.wake();
    });
    ws.on('open', () => this.wake());
    ws.on('close', (code) => { this.closed = { code }; this.wake(); });
    ws.on('error', (error) => { this.error = error; });
    ws.on('unexpected-response', (request, response) => {
      this.status = response.statusCode;
      this.closed = { code: 0 };
      response.resume();
      request.destroy();
      this.wake();
    });
  }

  get messages() { return this.received.map((r) => r.message); }

  wake() { for (const w of [...this.waiting]) w(); }

  // Waits until find() gives something other than undefined.
  until(find, what) {
    return new Promise((resolve, reject) => {
      const attempt = () => {
        let value;
        try { value = find(); } catch (error) { done(); reject(error); return; }
        if (value !== undefined) { done(); resolve(value); }
      };
      const timer = setTimeout(() => { done(); reject(new Differs(`no ${what}`)); }, this.test.patience);
      const done = () => { clearTimeout(timer); this.waiting = this.waiting.filter((w) => w !== attempt); };
      this.waiting.push(attempt);
      attempt();
    });
  }

  // The first message from index `from` on that fits.
  next(fits, what, from = this.received.length) {
    return this.until(() => {
      const found = this.received.slice(from).find((r) => r.message && fits(r.message));
      if (found) return found.message;
      if (this.closed) throw new Differs(`closed while waiting for ${what}`);
      return undefined;
    }, what);
  }

  send(value) { this.ws.send(typeof value === 'string' ? value : JSON.stringify(value)); }

  // Sends and gives the first message after it that fits.
  ask(value, fits, what) {
    const from = this.received.length;
    this.send(value);
    return this.next(fits, what, from);
  }

  ping() {
    return this.ask({ type: 'ping', id: uid('ping'), timestamp: new Date().toISOString() }, (m) => m.type === 'pong', 'pong');
  }

  error(value, text) {
    return this.ask(value, (m) => m.type === 'error', 'error').then((m) => { equal(m.error, text, 'text of the error'); return m; });
  }

  async subscribe(type, id, more = {}) {
    const answer = await this.ask(request('subscribe', type, id, more), isAnswer, 'answer to the subscription');
    check(answer.type !== 'error', `subscription answered with the error "${answer.error}"`);
    equal([answer.data.action, answer.data.resourceType, answer.data.resourceId, answer.data.status], ['subscribed', type, id, 'success'], 'answer');
    return answer;
  }

  async unsubscribe(type, id) { // an answer is optional
    this.send(request('unsubscribe', type, id));
    await this.ping();
  }

  // Causes an event for the resource of this connection's path and waits for it: all earlier events have arrived then.
  async sync() {
    const marker = uid('mark');
    const { type, id } = this.home;
    const from = this.received.length;
    const { control } = this.test;
    if (type === 'experiment') await control('experiment_progress', { experimentId: id, estimatedTimeRemaining: marker });
    else if (type === 'task') await control('task_progress', { taskId: id, experimentId: uid('none'), currentStage: marker });
    else {
      await control('experiment_updated', {
        id: uid('e'), name: marker, ownerId: type === 'user' ? id : uid('u'), projectId: type === 'project' ? id : uid('p'),
      });
    }
    await this.until(() => (this.received.slice(from).some((r) => r.text.includes(marker)) ? true : undefined), 'event for the path');
  }

  // After a sync: the messages that fit.
  async seen(fits) {
    await this.sync();
    return this.messages.filter((m) => m && fits(m));
  }

  async close() {
    this.ws.close(1000);
    await this.until(() => this.closed ?? undefined, 'end of the connection');
  }
}

const isAnswer = (m) => m.type === 'error' || (m.type === 'system_status' && typeof m.data?.action === 'string');
function request(action, resourceType, resourceId, more = {}) {
  return { type: 'system_status', ...more, data: { action, resourceType, resourceId } };
}

class Test {
  constructor(hub, patience) {
    this.hub = hub;
    this.patience = patience;
    this.clients = [];
    this.control = (name, body) => hub.control(name, body);
  }

  // Opens a connection; does not wait for anything.
  open({ at = `/ws/experiments/${uid('home')}`, user = uid('user'), token = jwt(user), how = 'query', query, scheme = 'Bearer' } = {}) {
    const headers = how === 'header' ? { Authorization: `${scheme} ${token}` } : {};
    const text = query ?? (how === 'query' ? `?token=${token}` : '');
    const client = new Client(this, new WebSocket(`${this.hub.url}${at}${text}`, { headers }));
    const [, plural, id] = /^\/ws\/([a-z]+)(?:\/(.*))?$/.exec(at);
    client.user = user;
    client.home = plural === 'user' ? { type: 'user', id: user } : { type: plural.slice(0, -1), id: decodeURIComponent(id) };
    this.clients.push(client);
    return client;
  }

  // Opens a connection that must be admitted: it answers a ping.
  async connect(how) {
    const client = this.open(how);
    await client.until(() => {
      if (client.closed) throw new Differs(`connection refused (${client.status ?? client.closed.code})`);
      return client.ws.readyState === WebSocket.OPEN ? true : undefined;
    }, 'open connection');
    await client.ping().catch((error) => {
      const refusal = client.messages.find((m) => m?.type === 'error');
      throw refusal ? new Differs(`connection refused: ${refusal.error}`) : error;
    });
    return client;
  }

  // Opens a connection that must be refused; gives the text of the error (null: refused by HTTP).
  async refused(how) {
    const client = this.open(how);
    client.ws.on('open', () => client.send({ type: 'ping', id: uid('ping'), timestamp: new Date().toISOString() }));
    await client.until(() => {
      if (client.messages.some((m) => m?.type === 'pong')) throw new Differs('connection admitted');
      return client.closed ?? undefined;
    }, 'end of the refused connection');
    if (client.status) return null;
    const error = client.messages.find((m) => m?.type === 'error');
    check(error, 'closed without an error message');
    return error.error;
  }

  // Opens a connection when a place may still have to become free.
  async connectSoon(how) {
    const end = Date.now() + this.patience;
    for (;;) {
      try { return await this.connect(how); } catch (error) {
        if (!(error instanceof Differs) || Date.now() > end) throw error;
      }
      await new Promise((r) => { setTimeout(r, 25); });
    }
  }

  finish() { for (const c of this.clients) c.ws.terminate(); }
}

// ---------------------------------------------------------------------------
// Conversations, one per bug

const experiment = (more = {}) => ({ id: uid('exp'), name: 'Parameter Sweep', ownerId: uid('owner'), projectId: uid('proj'), ...more });
const task = (experimentId, more = {}) => ({ id: uid('task'), experimentId, command: 'python script.py', workerId: null, ...more });
const worker = (more = {}) => ({ id: uid('worker'), computeResourceId: 'compute-1', experimentId: uid('exp'), ...more });
const progressOf = (id) => (m) => m.type === 'experiment_progress' && m.data?.experimentId === id;
const aboutExperiment = (id) => (m) => m.data?.experiment?.id === id;
const aboutTask = (id) => (m) => m.data?.task?.id === id;
const progress = (t, id, more = {}) => t.control('experiment_progress', { experimentId: id, ...more });
const form = (prefix, id) => (text) => typeof text === 'string' && text.startsWith(`${prefix}_${id}_`) && text.length > prefix.length + id.length + 2;
const unknownType = () => ({ type: uid('unknown'), id: uid('m'), timestamp: new Date().toISOString() });
const BAD = '{"type": "ping", ';

// One subscriber of `type id`, one event caused by act(): the matching messages.
async function single(t, type, id, act, fits) {
  const c = await t.connect();
  await c.subscribe(type, id);
  await act();
  return c.seen(fits);
}

// The data of one event at a subscriber of its experiment.
async function oneEvent(t, type, body, id = uid('exp')) {
  const fits = (m) => m.type === type;
  const found = await single(t, 'experiment', id, () => t.control(type, body(id)), fits);
  const mine = found.filter((m) => m.data?.estimatedTimeRemaining === undefined || m.data.experimentId === id);
  equal(mine.length, 1, `number of ${type}`);
  return mine[0];
}

const CONVERSATIONS = {
  // --- history
  async 'unsubscribe-after-error'(t) {
    const c = await t.connect();
    const id = uid('exp');
    await c.error(BAD, 'Invalid message format');
    await c.subscribe('experiment', id);
    await c.unsubscribe('experiment', id);
    await progress(t, id);
    equal((await c.seen(progressOf(id))).length, 0, 'events after the unsubscription');
  },
  async 'resubscribe-dead'(t) {
    const c = await t.connect();
    const id = uid('exp');
    await c.subscribe('experiment', id);
    await c.unsubscribe('experiment', id);
    await c.subscribe('experiment', id);
    await progress(t, id);
    equal((await c.seen(progressOf(id))).length, 1, 'events after the second subscription');
  },
  async 'second-malformed-silent'(t) {
    const c = await t.connect();
    await c.error(BAD, 'Invalid message format');
    await c.error('[1]', 'Invalid message format');
  },
  async 'project-stale'(t) {
    const e = experiment();
    await t.control('experiment_created', e);
    const p = uid('proj');
    const found = await single(t, 'project', p, () => t.control('experiment_updated', { ...e, projectId: p }), aboutExperiment(e.id));
    equal(found.length, 1, 'events in the new project');
  },
  async 'completed-mutes-tasks'(t) {
    const e = experiment();
    const k = task(e.id);
    await t.control('experiment_created', e);
    await t.control('task_created', k);
    await t.control('experiment_completed', e);
    const found = await single(t, 'experiment', e.id, () => t.control('task_completed', k), aboutTask(k.id));
    equal(found.length, 1, 'task events after the completion');
  },
  async 'reply-cache-by-id'(t) {
    const [a, b] = [await t.connect(), await t.connect()];
    const more = { id: uid('request'), timestamp: '2024-01-15T10:30:00Z' };
    await a.subscribe('experiment', uid('exp'), more);
    await b.subscribe('project', uid('proj'), more);
  },
  async 'pong-stops-answers'(t) {
    const c = await t.connect();
    c.send({ type: 'pong', id: uid('pong'), timestamp: new Date().toISOString() });
    await c.ping();
  },
  async 'token-once'(t) {
    const user = uid('user');
    const token = jwt(user);
    const at = `/ws/experiments/${uid('exp')}`;
    const c = await t.connect({ user, token, at });
    await c.close();
    await t.connect({ user, token, at });
  },
  async 'error-text-sticks'(t) {
    const c = await t.connect();
    await c.error(unknownType(), 'Unknown message type');
    await c.error(BAD, 'Invalid message format');
  },
  async 'summary-stale'(t) {
    const k = task(uid('exp'));
    await t.control('task_created', k);
    const [m] = await single(t, 'task', k.id, () => t.control('task_updated', { ...k, status: 'RUNNING' }), aboutTask(k.id));
    check(m, 'no task_updated');
    equal([m.data.task.status, m.data.summary.status], ['RUNNING', 'RUNNING'], 'status in task and summary');
  },
  async 'subscribe-toggles'(t) {
    const c = await t.connect();
    const id = uid('exp');
    await c.subscribe('experiment', id);
    await c.subscribe('experiment', id);
    await progress(t, id);
    equal((await c.seen(progressOf(id))).length, 1, 'events after two subscriptions');
  },
  async 'heartbeat-ends-after-pong'(t) {
    const c = await t.connect();
    for (let i = 0; i < 3; i++) {
      const from = c.received.length;
      await t.control('ping');
      const ping = await c.next((m) => m.type === 'ping', 'ping', from);
      check(typeof ping.id === 'string' && typeof ping.timestamp === 'string', 'ping without id or timestamp');
      c.send({ type: 'pong', id: uid('pong'), timestamp: new Date().toISOString() });
      await c.ping();
    }
  },
  // --- several
  async 'fifth-evicts-first'(t) {
    const c = await t.connect();
    const ids = Array.from({ length: 6 }, () => uid('exp'));
    for (const id of ids) await c.subscribe('experiment', id);
    for (const id of ids) await progress(t, id);
    await c.sync();
    for (const id of ids) equal(c.messages.filter(progressOf(id)).length, 1, `events of subscription ${ids.indexOf(id) + 1}`);
  },
  async 'user-newest-only'(t) {
    const user = uid('user');
    const clients = [await t.connect({ at: '/ws/user', user }), await t.connect({ at: '/ws/user', user })];
    for (const c of clients) c.home = { type: 'experiment', id: uid('home') };
    for (const c of clients) await c.subscribe('experiment', c.home.id);
    const e = experiment({ ownerId: user });
    await t.control('experiment_created', e);
    for (const c of clients) equal((await c.seen(aboutExperiment(e.id))).length, 1, 'events of the user');
  },
  async 'unsubscribe-for-all'(t) {
    const [a, b] = [await t.connect(), await t.connect()];
    const id = uid('exp');
    await a.subscribe('experiment', id);
    await b.subscribe('experiment', id);
    await a.unsubscribe('experiment', id);
    await progress(t, id);
    equal((await b.seen(progressOf(id))).length, 1, 'events of the other subscriber');
    equal((await a.seen(progressOf(id))).length, 0, 'events of the former subscriber');
  },
  async 'close-skips-next'(t) {
    const id = uid('exp');
    const clients = [await t.connect(), await t.connect(), await t.connect()];
    for (const c of clients) await c.subscribe('experiment', id);
    await clients[0].close();
    await gone(t, clients[0].user, 0);
    await progress(t, id);
    await progress(t, id);
    for (const c of clients.slice(1)) equal((await c.seen(progressOf(id))).length, 2, 'events after one left');
  },
  async 'sixth-in-burst'(t) {
    const e = experiment();
    const events = Array.from({ length: 8 }, (_, i) => ({ type: 'experiment_updated', body: { ...e, name: `step ${i}` } }));
    const found = await single(t, 'experiment', e.id, () => t.control('batch', { events }), aboutExperiment(e.id));
    equal(found.map((m) => m.data.experiment.name), events.map((x) => x.body.name), 'events of the burst');
  },
  async 'two-paths-twice'(t) {
    const c = await t.connect();
    const e = experiment();
    await c.subscribe('experiment', e.id);
    await c.subscribe('project', e.projectId);
    await t.control('experiment_created', e);
    const ids = (await c.seen(aboutExperiment(e.id))).map((m) => m.id);
    check(ids.length >= 1, 'no event');
    equal(new Set(ids).size, ids.length, 'different ids');
  },
  async 'newest-task-only'(t) {
    const e = experiment();
    const [k, l] = [task(e.id), task(e.id)];
    await t.control('experiment_created', e);
    await t.control('task_created', k);
    await t.control('task_created', l);
    const found = await single(t, 'experiment', e.id, async () => {
      await t.control('task_updated', { ...k, status: 'RUNNING' });
      await t.control('task_updated', { ...l, status: 'RUNNING' });
    }, (m) => m.type === 'task_updated');
    equal(found.map((m) => m.data.task.id), [k.id, l.id], 'tasks with events');
  },
  async 'burst-order'(t) {
    const c = await t.connect();
    const p = uid('proj');
    await c.subscribe('project', p);
    const events = Array.from({ length: 6 }, (_, i) => ({ type: 'experiment_created', body: experiment({ projectId: p, name: `n${i}` }) }));
    await t.control('batch', { events });
    const found = await c.seen((m) => m.data?.experiment?.projectId === p);
    equal(found.map((m) => m.data.experiment.name), ['n0', 'n1', 'n2', 'n3', 'n4', 'n5'], 'order of the burst');
    const times = found.map((m) => Date.parse(m.timestamp));
    equal(times, [...times].sort((x, y) => x - y), 'order of the timestamps');
  },
  async 'burst-replies-last'(t) {
    const c = await t.connect();
    const ids = [uid('exp'), uid('exp'), uid('exp')];
    const from = c.received.length;
    for (const id of ids) c.send(request('subscribe', 'experiment', id));
    const named = await c.until(() => {
      const answers = c.messages.slice(from).filter((m) => m && isAnswer(m));
      return answers.length === 3 ? answers.map((m) => m.data?.resourceId) : undefined;
    }, 'three answers');
    equal(named.sort(), [...ids].sort(), 'resources in the answers');
  },
  async 'one-project-per-connection'(t) {
    const c = await t.connect();
    const [e, f] = [experiment(), experiment()];
    await c.subscribe('project', e.projectId);
    await c.subscribe('project', f.projectId);
    await t.control('experiment_created', e);
    await t.control('experiment_created', f);
    await c.sync();
    equal([e, f].map((x) => c.messages.filter(aboutExperiment(x.id)).length), [1, 1], 'events of the two projects');
  },
  async 'type-shared-unsubscribe'(t) {
    const c = await t.connect();
    const id = uid('same');
    await c.subscribe('task', id);
    await c.subscribe('experiment', id);
    await c.unsubscribe('task', id);
    await progress(t, id);
    await t.control('task_updated', task(uid('exp'), { id }));
    equal((await c.seen(progressOf(id))).length, 1, 'events of the experiment');
    equal(c.messages.filter(aboutTask(id)).length, 0, 'events of the task');
  },
  // --- identity
  async 'prefix-32'(t) {
    const start = uid('long').padEnd(32, 'a');
    const [one, two] = [`${start}1`, `${start}2`];
    const found = await single(t, 'experiment', one, async () => { await progress(t, two); await progress(t, one); }, (m) => m.type === 'experiment_progress' && [one, two].includes(m.data.experimentId));
    equal(found.map((m) => m.data.experimentId), [one], 'experiments with events');
  },
  async 'project-case'(t) {
    const p = uid('proj');
    const [e, f] = [experiment({ projectId: p.toUpperCase() }), experiment({ projectId: p })];
    const found = await single(t, 'project', p, async () => {
      await t.control('experiment_created', e);
      await t.control('experiment_created', f);
    }, (m) => m.type === 'experiment_created');
    equal(found.map((m) => m.data.experiment.id), [f.id], 'experiments with events');
  },
  async 'unicode-form'(t) {
    const start = uid('exp');
    const [one, two] = [`${start}\u00e9`, `${start}e\u0301`];
    const found = await single(t, 'experiment', two, async () => { await progress(t, one); await progress(t, two); }, (m) => [one, two].includes(m.data?.experimentId));
    equal(found.map((m) => m.data.experimentId), [two], 'experiments with events');
  },
  async 'task-gets-experiment'(t) {
    const e = experiment();
    const found = await single(t, 'task', e.id, () => t.control('experiment_created', e), aboutExperiment(e.id));
    equal(found.length, 0, 'experiment events at a task subscriber');
  },
  async 'owner-is-receiver'(t) {
    const e = experiment();
    const found = await single(t, 'experiment', e.id, () => t.control('experiment_created', e), aboutExperiment(e.id));
    equal([found[0]?.data.summary.ownerId, found[0]?.data.experiment.ownerId], [e.ownerId, e.ownerId], 'owner');
  },
  async 'worker-of-last-task'(t) {
    const [k, l] = [task(uid('exp'), { workerId: uid('w') }), task(uid('exp'), { workerId: uid('w'), error: 'Script execution failed' })];
    await t.control('task_created', l);
    await t.control('task_updated', k);
    const [m] = await single(t, 'task', l.id, () => t.control('task_failed', l), aboutTask(l.id));
    equal([m?.data.task.workerId, m?.data.summary.workerId], [l.workerId, l.workerId], 'worker');
  },
  async 'task-id-as-experiment'(t) {
    const k = task(uid('exp'));
    const [m] = await single(t, 'experiment', k.experimentId, () => t.control('task_created', k), aboutTask(k.id));
    check(form('task', k.id)(m?.id), `id ${m?.id} of task_created`);
  },
  async 'user-prefix'(t) {
    const user = uid('user');
    const c = await t.connect({ at: '/ws/user', user });
    const [e, f] = [experiment({ ownerId: `${user}5` }), experiment({ ownerId: user })];
    await t.control('experiment_created', e);
    await t.control('experiment_created', f);
    const found = await c.seen((m) => m.type === 'experiment_created');
    equal(found.map((m) => m.data.experiment.id), [f.id], 'experiments with events');
  },
  async 'reply-to-newest'(t) {
    const user = uid('user');
    const [a, b] = [await t.connect({ user }), await t.connect({ user })];
    await a.subscribe('project', uid('proj'));
    await b.sync();
    equal(b.messages.filter((m) => m && isAnswer(m)).length, 0, 'answers at the other connection');
  },
  async 'project-of-last-experiment'(t) {
    const [e, f] = [experiment(), experiment()];
    await t.control('experiment_created', e);
    await t.control('experiment_created', f);
    const k = task(e.id);
    const c = await t.connect();
    await c.subscribe('project', e.projectId);
    const d = await t.connect();
    await d.subscribe('project', f.projectId);
    await t.control('task_created', k);
    equal([(await c.seen(aboutTask(k.id))).length, (await d.seen(aboutTask(k.id))).length], [1, 0], 'task events of the projects');
  },
  async 'progress-names-experiment'(t) {
    const e = experiment();
    const k = task(e.id);
    await t.control('experiment_created', e);
    const [m] = await single(t, 'project', e.projectId, () => t.control('task_progress', { taskId: k.id, experimentId: e.id, progressPercent: 75 }), (x) => x.type === 'task_progress');
    check(form('task', k.id)(m?.id), `id ${m?.id} of task_progress`);
  },
  // --- neighbours
  async 'expired-counts'(t) {
    const user = uid('user');
    for (let i = 0; i < t.hub.perUser; i++) {
      const text = await t.refused({ user, token: jwt(user, { exp: -60 }) });
      equal(text, 'Invalid or expired token', 'error for an expired token');
    }
    await t.connect({ user });
  },
  async 'abort-keeps-slot'(t) {
    const user = uid('user');
    const clients = await Promise.all(Array.from({ length: t.hub.perUser }, () => t.connect({ user })));
    for (const c of clients) c.ws.terminate();
    await t.connectSoon({ user });
  },
  async 'case-shares-slots'(t) {
    const user = uid('user');
    await Promise.all(Array.from({ length: t.hub.perUser }, () => t.connect({ user })));
    await t.connect({ user: user.toUpperCase() });
  },
  async 'eleventh-unsubscribes'(t) {
    const user = uid('user');
    const clients = await Promise.all(Array.from({ length: t.hub.perUser }, () => t.connect({ user })));
    const id = uid('exp');
    await clients[3].subscribe('experiment', id);
    await t.refused({ user });
    await progress(t, id);
    await clients[3].subscribe('experiment', clients[3].home.id); // sync needs it
    equal((await clients[3].seen(progressOf(id))).length, 1, 'events after the refusal of the eleventh');
  },
  async 'malformed-taints-next'(t) {
    const [a, b] = [await t.connect(), await t.connect()];
    await a.error(BAD, 'Invalid message format');
    await b.subscribe('experiment', uid('exp'));
  },
  async 'close-unsubscribes-user'(t) {
    const user = uid('user');
    const [a, b] = [await t.connect({ user }), await t.connect({ user })];
    const id = uid('exp');
    await a.subscribe('experiment', id);
    await b.subscribe('experiment', id);
    await a.close();
    await gone(t, user, 1);
    await progress(t, id);
    equal((await b.seen(progressOf(id))).length, 1, 'events after the other connection left');
  },
  async 'owner-away-mutes-project'(t) {
    const e = experiment();
    const owner = await t.connect({ at: '/ws/user', user: e.ownerId });
    await t.control('experiment_created', e);
    await owner.close();
    await gone(t, e.ownerId, 0);
    const found = await single(t, 'project', e.projectId, () => t.control('experiment_updated', e), aboutExperiment(e.id));
    equal(found.length, 1, 'events after the owner left');
  },
  async 'silent-peer-blocks'(t) {
    const id = uid('exp');
    const [a, b] = [await t.connect(), await t.connect()];
    await a.subscribe('experiment', id);
    await b.subscribe('experiment', id);
    const from = b.received.length;
    await t.control('ping');
    await b.next((m) => m.type === 'ping', 'ping', from);
    b.send({ type: 'pong', id: uid('pong'), timestamp: new Date().toISOString() });
    await b.ping();
    await progress(t, id);
    equal((await b.seen(progressOf(id))).length, 1, 'events beside a silent peer');
  },
  async 'exclusive-by-user'(t) {
    const id = uid('exp');
    const [a, b] = [await t.connect(), await t.connect()];
    await a.subscribe('experiment', id);
    await b.subscribe('experiment', id);
    await progress(t, id);
    equal([(await a.seen(progressOf(id))).length, (await b.seen(progressOf(id))).length], [1, 1], 'events of the two users');
  },
  async 'errors-close-door'(t) {
    const c = await t.connect();
    for (let i = 0; i < 6; i++) await c.error(unknownType(), 'Unknown message type');
    await t.connect();
  },
  async 'bad-signature-kicks'(t) {
    const c = await t.connect();
    equal(await t.refused({ token: jwt(c.user, { secret: 'other' }) }), 'Invalid or expired token', 'error for a forged token');
    await c.ping();
    await c.sync();
  },
  // --- values
  async 'empty-name-missing'(t) {
    const m = await oneEvent(t, 'experiment_created', (id) => experiment({ id, name: '' }));
    equal([m.data.experiment.name, m.data.summary.name], ['', ''], 'name');
  },
  async 'zero-dropped'(t) {
    const counts = { totalTasks: 10, completedTasks: 10, failedTasks: 0, runningTasks: 0, progressPercent: 100 };
    const id = uid('exp');
    const [m] = await single(t, 'experiment', id, () => progress(t, id, counts), progressOf(id));
    for (const [name, value] of Object.entries(counts)) equal(m?.data[name], value, name);
  },
  async 'null-worker-dropped'(t) {
    const m = await oneEvent(t, 'task_updated', (id) => task(id, { workerId: null, status: 'QUEUED' }));
    equal([m.data.task.workerId, m.data.summary.workerId], [null, null], 'workerId');
  },
  async 'html-escape'(t) {
    const error = 'a<b&c>d &lt; "q"';
    const m = await oneEvent(t, 'task_failed', (id) => task(id, { error }));
    equal([m.data.task.error, m.data.summary.error], [error, error], 'error');
  },
  async 'nul-cut'(t) {
    const command = 'printf a\u0000b\u001f\u007f';
    const m = await oneEvent(t, 'task_created', (id) => task(id, { command }));
    equal(m.data.task.command, command, 'command');
  },
  async 'reply-cut-255'(t) {
    const c = await t.connect();
    await c.subscribe('experiment', uid('exp').padEnd(255, 'y'));
    await c.subscribe('experiment', uid('exp').padEnd(256, 'y'));
    await c.subscribe('experiment', uid('exp').padEnd(4000, 'y'));
  },
  async 'command-cut-65535'(t) {
    const command = 'z'.repeat(65535) + '!';
    const m = await oneEvent(t, 'task_created', (id) => task(id, { command }));
    equal([m.data.task.command.length, m.data.task.command.at(-1)], [65536, '!'], 'length and end of the command');
  },
  async 'fraction-rounded'(t) {
    const k = uid('task');
    const [m] = await single(t, 'task', k, () => t.control('task_progress', { taskId: k, experimentId: uid('exp'), progressPercent: 12.345 }), (x) => x.data?.taskId === k);
    equal(m?.data.progressPercent, 12.345, 'progressPercent');
  },
  async 'numeric-id'(t) {
    const c = await t.connect();
    for (const id of ['0123', '7', '1e3', '-0', 'null', 'true', '']) await c.subscribe('task', id);
  },
  async 'prototype-names'(t) {
    const c = await t.connect();
    const ids = ['constructor', '__proto__', 'toString', 'hasOwnProperty'];
    for (const id of ids) await c.subscribe('experiment', id);
    for (const id of ids) await progress(t, id);
    await c.sync();
    for (const id of ids) equal(c.messages.filter(progressOf(id)).length, 1, `events of ${id}`);
  },
  async 'astral-lost'(t) {
    const name = 'Sweep \u{1F600} \u{10FFFF} \u00e9 e\u0301 \uFFFD';
    const m = await oneEvent(t, 'experiment_created', (id) => experiment({ id, name }));
    equal([m.data.experiment.name, m.data.summary.name], [name, name], 'name');
  },
  async 'path-decoded-twice'(t) {
    const id = `${uid('exp')}%41`;
    const c = await t.connect({ at: `/ws/experiments/${encodeURIComponent(id)}` });
    await c.sync();
  },
  async 'plus-is-space'(t) {
    const c = await t.connect({ at: `/ws/tasks/${uid('a')}+b` });
    await c.sync();
  },
  // --- equivalents
  async 'data-first'(t) {
    const c = await t.connect();
    const id = uid('exp');
    const answer = await c.ask(`{"data":{"resourceId":"${id}","resourceType":"experiment","action":"subscribe"},"timestamp":"2024-01-15T10:30:00Z","id":"r1","type":"system_status"}`, isAnswer, 'answer');
    equal([answer.data?.action, answer.data?.resourceId], ['subscribed', id], 'answer');
  },
  async 'leading-newline'(t) {
    const c = await t.connect();
    const id = uid('exp');
    const answer = await c.ask(`\r\n\t ${JSON.stringify(request('subscribe', 'experiment', id), null, 2)} \n`, isAnswer, 'answer');
    equal([answer.data?.action, answer.data?.resourceId], ['subscribed', id], 'answer');
  },
  async 'escaped-type'(t) {
    const c = await t.connect();
    const id = uid('exp');
    const answer = await c.ask(JSON.stringify(request('subscribe', 'experiment', id)).replace('system_status', 'system_st\\u0061tus'), isAnswer, 'answer');
    equal([answer.data?.action, answer.data?.resourceId], ['subscribed', id], 'answer');
  },
  async 'escaped-solidus'(t) {
    const c = await t.connect();
    const id = `${uid('exp')}/1`;
    const answer = await c.ask(JSON.stringify(request('subscribe', 'experiment', id)).replace('/', '\\/'), isAnswer, 'answer');
    equal(answer.data?.resourceId, id, 'resourceId in the answer');
    await progress(t, id);
    equal((await c.seen(progressOf(id))).length, 1, 'events');
  },
  async 'fragmented'(t) {
    const c = await t.connect();
    const id = uid('\u00e9xp');
    const bytes = Buffer.from(JSON.stringify(request('subscribe', 'experiment', id)));
    const cut = bytes.indexOf(0xc3) + 1; // inside a character
    const from = c.received.length;
    c.ws.send(bytes.subarray(0, 5), { binary: false, fin: false, compress: false });
    c.ws.send(bytes.subarray(5, cut), { binary: false, fin: false, compress: false });
    c.ws.send(bytes.subarray(cut), { binary: false, fin: true, compress: false });
    const answer = await c.next(isAnswer, 'answer', from);
    equal([answer.data?.action, answer.data?.resourceId], ['subscribed', id], 'answer');
  },
  async 'ping-between-fragments'(t) {
    const c = await t.connect();
    const id = uid('exp');
    const bytes = Buffer.from(JSON.stringify(request('subscribe', 'experiment', id)));
    const from = c.received.length;
    c.ws.send(bytes.subarray(0, 9), { binary: false, fin: false, compress: false });
    c.ws.ping('between');
    c.ws.send(bytes.subarray(9), { binary: false, fin: true, compress: false });
    const answer = await c.next(isAnswer, 'answer', from);
    equal([answer.data?.action, answer.data?.resourceId], ['subscribed', id], 'answer');
  },
  async 'request-offset-refused'(t) {
    const c = await t.connect();
    await c.subscribe('experiment', uid('exp'), { id: uid('r'), timestamp: '2024-01-15T10:30:00Z' });
    await c.subscribe('experiment', uid('exp'), { id: uid('r'), timestamp: '2024-01-15T11:30:00.5+01:00' });
  },
  async 'bearer-case'(t) {
    await t.connect({ how: 'header' });
    await t.connect({ how: 'header', scheme: 'bearer' });
    await t.connect({ how: 'header', scheme: 'BEARER' });
  },
  async 'token-not-first'(t) {
    const user = uid('user');
    await t.connect({ user, query: `?client=web&token=${jwt(user)}&v=1` });
  },
  async 'token-percent'(t) {
    const user = uid('user');
    await t.connect({ user, query: `?token=${jwt(user).replaceAll('.', '%2E').replace('e', '%65')}` });
  },
  async 'path-percent'(t) {
    const c = await t.connect({ at: `/ws/projects/${uid('proj').replaceAll('-', '%2D')}` });
    await c.sync();
  },
  async 'header-not-subscribed'(t) {
    const c = await t.connect({ how: 'header' });
    await c.sync();
  },
  // --- one-of-many
  async 'failed-not-to-project'(t) {
    const c = await t.connect();
    const e = experiment();
    await c.subscribe('project', e.projectId);
    const types = ['experiment_created', 'experiment_updated', 'experiment_progress', 'experiment_completed', 'experiment_failed'];
    for (const type of types) await t.control(type, type === 'experiment_progress' ? { experimentId: e.id } : e);
    await c.sync();
    const found = c.messages.filter((m) => m && (aboutExperiment(e.id)(m) || progressOf(e.id)(m)));
    equal(found.map((m) => m.type), types, 'types at a project subscriber');
    for (const m of found) check(form('exp', e.id)(m.id), `id ${m.id} of ${m.type}`);
  },
  async 'task-progress-not-to-user'(t) {
    const e = experiment();
    const k = task(e.id);
    await t.control('experiment_created', e);
    const c = await t.connect({ at: '/ws/user', user: e.ownerId });
    const types = ['task_created', 'task_updated', 'task_progress', 'task_completed', 'task_failed'];
    for (const type of types) await t.control(type, type === 'task_progress' ? { taskId: k.id, experimentId: e.id } : k);
    await c.sync();
    const found = c.messages.filter((m) => m && (aboutTask(k.id)(m) || m.data?.taskId === k.id));
    equal(found.map((m) => m.type), types, 'types at a user subscriber');
  },
  async 'offline-not-to-system'(t) {
    const c = await t.connect();
    await c.subscribe('system', 'all');
    const w = worker();
    const types = ['worker_registered', 'worker_updated', 'worker_offline'];
    for (const type of types) await t.control(type, w);
    await c.sync();
    equal(c.messages.filter((m) => m?.data?.worker?.id === w.id).map((m) => m.type), types, 'types at a system subscriber');
  },
  async 'registered-to-experiment'(t) {
    const c = await t.connect();
    const w = worker({ experimentId: c.home.id });
    for (const type of ['worker_registered', 'worker_updated', 'worker_offline']) await t.control(type, w);
    equal((await c.seen((m) => typeof m.type === 'string' && m.type.startsWith('worker_'))).map((m) => m.type), [], 'types at an experiment subscriber');
  },
  async 'tasks-no-header'(t) {
    for (const at of ['/ws/experiments/', '/ws/tasks/', '/ws/projects/']) await t.connect({ at: at + uid('r'), how: 'header' });
    await t.connect({ at: '/ws/user', how: 'header' });
  },
  async 'progress-no-timestamp'(t) {
    const e = experiment();
    const k = task(e.id);
    const c = await t.connect();
    await c.subscribe('project', e.projectId);
    await t.control('experiment_created', e);
    await t.control('experiment_progress', { experimentId: e.id });
    await t.control('task_created', k);
    await t.control('task_progress', { taskId: k.id, experimentId: e.id });
    await c.sync();
    for (const m of c.messages) {
      check(typeof m?.type === 'string' && typeof m.id === 'string', 'message without type or id');
      check(typeof m.timestamp === 'string' && /^\d{4}-\d\d-\d\dT/.test(m.timestamp) && !Number.isNaN(Date.parse(m.timestamp)), `timestamp of ${m.type}`);
    }
  },
  async 'failed-summary-no-error'(t) {
    const m = await oneEvent(t, 'task_failed', (id) => task(id, { error: 'Script execution failed' }));
    equal([m.data.task.error, m.data.summary.error], ['Script execution failed', 'Script execution failed'], 'error');
  },
  async 'worker-updated-id'(t) {
    const c = await t.connect();
    await c.subscribe('system', 'all');
    const w = worker();
    for (const type of ['worker_registered', 'worker_updated', 'worker_offline']) await t.control(type, w);
    const found = await c.seen((m) => m.data?.worker?.id === w.id);
    check(found.length > 0, 'no worker events');
    for (const m of found) check(form('worker', w.id)(m.id), `id ${m.id} of ${m.type}`);
  },
  async 'task-unsubscribe'(t) {
    const c = await t.connect();
    const [k, e] = [task(uid('exp')), experiment()];
    await c.subscribe('task', k.id);
    await c.subscribe('project', e.projectId);
    await c.unsubscribe('task', k.id);
    await c.unsubscribe('project', e.projectId);
    await t.control('task_created', k);
    await t.control('experiment_created', e);
    equal((await c.seen((m) => aboutTask(k.id)(m) || aboutExperiment(e.id)(m))).length, 0, 'events after the unsubscription');
  },
  async 'unknown-error-no-id'(t) {
    const c = await t.connect();
    for (const [bad, text] of [[BAD, 'Invalid message format'], [unknownType(), 'Unknown message type'], [{ type: 'PING', id: uid('p') }, 'Unknown message type']]) {
      const m = await c.error(bad, text);
      check(typeof m.id === 'string' && typeof m.timestamp === 'string', `error "${text}" without id or timestamp`);
    }
  },
  async 'user-accepts-expired'(t) {
    const user = uid('user');
    for (const at of [`/ws/experiments/${uid('r')}`, `/ws/tasks/${uid('r')}`, `/ws/projects/${uid('r')}`, '/ws/user']) {
      equal(await t.refused({ at, user, token: jwt(user, { exp: -60 }) }), 'Invalid or expired token', `error at ${at}`);
      equal(await t.refused({ at, user, query: '' , how: 'none' }), 'Authentication required', `error at ${at}`);
    }
  },
  async 'status-not-to-projects'(t) {
    for (const at of [`/ws/experiments/${uid('r')}`, `/ws/tasks/${uid('r')}`, `/ws/projects/${uid('r')}`, '/ws/user']) {
      const c = await t.connect({ at });
      const uptime = uid('up');
      await t.control('system_status', { uptime });
      const found = await c.seen((m) => m.type === 'system_status' && m.data?.uptime === uptime);
      equal(found.length, 1, `system_status at ${at}`);
      check(/^system[_-]./.test(found[0].id), `id ${found[0].id} of system_status`);
    }
  },
};

// Waits until the hub has noticed that only `count` connections of the user are left.
async function gone(t, user, count) {
  const end = Date.now() + t.patience;
  for (;;) {
    const { users } = await t.control('state');
    if ((users[user] ?? 0) === count) return;
    if (Date.now() > end) throw new Differs('the hub does not notice the end of a connection');
    await new Promise((r) => { setTimeout(r, 10); });
  }
}

// ---------------------------------------------------------------------------
// Running

// Gives null (as documented) or the text of the difference. Other errors are faults of the self-test.
async function converse(hub, name, patience) {
  const test = new Test(hub, patience);
  try {
    await CONVERSATIONS[name](test);
    return null;
  } catch (error) {
    if (error instanceof Differs) return error.message;
    throw error;
  } finally { test.finish(); }
}

const NORMAL = 30000; // a busy machine is slow; spent only where something is missing
const SHORT = 1500;
let correct = null; // differences of the correct hub, once known
let slowest = 0; // ms that a conversation took with the correct hub: on a busy machine bugs get more patience too
const short = () => Math.min(10000, Math.max(SHORT, 3 * slowest));
let bad = 0;
function line(ok, kind, name, text) {
  if (!ok) bad += 1;
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${kind} ${name}: ${text}`);
}

// Several conversations at a time; gives up after some differences.
async function all(hub, names, patience, differences, limit = 5) {
  const rest = [...names];
  await Promise.all(Array.from({ length: 6 }, async () => {
    while (rest.length && differences.size < limit) {
      const name = rest.shift();
      const begun = Date.now();
      const text = await converse(hub, name, patience).catch((e) => `fault: ${e.stack}`);
      if (text !== null) differences.set(name, text);
      else if (!correct) slowest = Math.max(slowest, Date.now() - begun);
    }
  }));
}

async function withHub(args, act, perUser = 10) {
  const hub = await Hub.start(args, perUser);
  let end;
  try { await act(hub); } finally { end = await hub.stop(); }
  if (end.code !== 0) throw new Error(`the hub ended with ${JSON.stringify(end)}: ${hub.errors.slice(0, 300)}`);
}

async function testCorrect(names) {
  const differences = new Map();
  await withHub([], (hub) => all(hub, names, NORMAL, differences));
  return differences;
}

async function testBug(name, correct, cross) {
  let text = null;
  const others = new Map();
  try {
    await withHub(['--bug', name], async (hub) => { text = await converse(hub, name, short()); });
    if (cross) await withHub(['--bug', name], (hub) => all(hub, Object.keys(CONVERSATIONS).filter((n) => n !== name), short(), others, 20));
  } catch (error) { line(false, 'bug', name, `fault: ${error.stack}`); return; }
  if (correct.has(name)) line(false, 'bug', name, `the correct hub differs: ${correct.get(name)}`);
  else if (text === null) line(false, 'bug', name, 'no difference');
  else line(true, 'bug', name, text + (others.size ? ` [also ${[...others.keys()].join(', ')}]` : ''));
}

async function testVariant(name, names) {
  const differences = new Map();
  try {
    await withHub(['--variant', name], (hub) => all(hub, names, NORMAL, differences), 4);
  } catch (error) { line(false, 'variant', name, `fault: ${error.message}`); return; }
  if (differences.size === 0) line(true, 'variant', name, `${names.length} conversations`);
  else line(false, 'variant', name, [...differences].map(([n, text]) => `${n}: ${text}`).join('; '));
}

// Runs the jobs, four at a time.
async function pool(jobs) {
  const rest = [...jobs];
  await Promise.all(Array.from({ length: 4 }, async () => { while (rest.length) await rest.shift()(); }));
}

const args = process.argv.slice(2);
const cross = args.includes('--cross');
const plain = args.includes('plain'); // all conversations with the hub as it is
const wanted = args.filter((a) => a !== '--cross' && a !== 'plain');
const list = JSON.parse(execFileSync(process.execPath, [HUB, '--list'], { encoding: 'utf8', maxBuffer: 1 << 24 }));
const chosen = (items) => items.map((i) => i.name).filter((n) => (wanted.length === 0 && !plain) || wanted.includes(n));
const bugs = chosen(list.bugs);
const variants = chosen(list.variants);
for (const n of wanted) if (!bugs.includes(n) && !variants.includes(n)) line(false, 'name', n, 'unknown');
for (const n of bugs) if (!CONVERSATIONS[n]) line(false, 'bug', n, 'no conversation');
const names = Object.keys(CONVERSATIONS);

const started = Date.now();
correct = await testCorrect(plain || variants.length ? names : bugs);
if (plain) line(correct.size === 0, 'hub', 'plain', [...correct].map(([n, text]) => `${n}: ${text}`).join('; ') || `${names.length} conversations`);
await pool([
  ...variants.map((n) => () => testVariant(n, names)),
  ...bugs.filter((n) => CONVERSATIONS[n]).map((n) => () => testBug(n, correct, cross)),
]);
console.log(`${bugs.length} bugs, ${variants.length} variants, ${bad} not as they should be, ${Math.round((Date.now() - started) / 1000)} s`);
process.exit(bad ? 1 : 0);
