#!/usr/bin/env node
// Self-test of hub.mjs. For every bug there is a conversation of the same name, with the result that the document
// asks for. The hub without bugs must give that result, the hub with the bug must not. For every variant all
// conversations must give the right result, and what SHOWN has for it must be true with it and false without.
//   selftest.mjs            everything
//   selftest.mjs NAME...    these bugs and variants only; "plain" is the hub as it is

import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { isDeepStrictEqual } from 'node:util';
import { fileURLToPath } from 'node:url';

const { WebSocket } = createRequire(import.meta.url)('ws');
const HUB = fileURLToPath(new URL('./hub.mjs', import.meta.url));
const PARALLEL = 6;
const OLD = 1684696137;
const UNIQUE = `${process.pid.toString(36)}`;
let counter = 0;
const fresh = (prefix) => `${prefix}-${UNIQUE}-${counter += 1}`;

// ---------------------------------------------------------------------------------------------------------------
// Client
// ---------------------------------------------------------------------------------------------------------------

class Peer {
  constructor(talk, ws) {
    this.talk = talk;
    this.ws = ws;
    this.answers = []; // responses of the hub
    this.requests = []; // requests of the hub
    this.pongs = [];
    this.code = null;
    this.watchers = new Set();
    ws.on('message', (data) => {
      const message = JSON.parse(data.toString());
      (Object.hasOwn(message, 'result') ? this.answers : this.requests).push(message);
      this.wake();
    });
    ws.on('pong', (data) => { this.pongs.push(data.toString()); this.wake(); });
    ws.on('close', (code) => { this.code = code; this.wake(); });
    ws.on('error', () => {});
  }

  wake() { for (const check of [...this.watchers]) check(); }

  // Waits until look() gives something other than undefined or false.
  until(look, ms = this.talk.patience) {
    return new Promise((resolve) => {
      let timer = null;
      const check = () => {
        const found = look();
        if (found === undefined || found === false) return false;
        clearTimeout(timer);
        this.watchers.delete(check);
        resolve(found);
        return true;
      };
      if (check()) return;
      this.watchers.add(check);
      timer = setTimeout(() => { this.watchers.delete(check); resolve(undefined); }, ms);
    });
  }

  send(message) { this.ws.send(typeof message === 'string' ? message : JSON.stringify(message)); }

  // Sends several messages in one write.
  burst(messages) {
    this.ws._socket.cork();
    for (const m of messages) this.send(m);
    this.ws._socket.uncork();
  }

  // Sends one message in several frames.
  frames(...parts) {
    parts.forEach((part, i) => this.ws.send(part, { fin: i === parts.length - 1 }));
  }

  byId(id) { return this.answers.filter((a) => isDeepStrictEqual(a.rsp_id, id)); }

  answer(id) { return this.until(() => this.byId(id)[0]); }

  // A valid log whose response shows that everything sent before has been served. Where responses to requests that
  // are outstanding together may come in any order, it takes two rounds.
  async settle() {
    for (let round = 0; round < this.talk.rounds; round += 1) {
      const id = fresh('settle');
      this.send({ action: 'log', req_id: id, posted: false, payload: { timestamp: OLD, severity: 'INFO', message: id } });
      if (await this.answer(id) === undefined) return;
    }
    if (this.talk.linger) await new Promise((resolve) => { setTimeout(resolve, this.talk.linger); });
  }

  // Sends a message, settles, and returns the responses that came meanwhile, without those to settle().
  async tell(...messages) {
    const before = this.answers.length;
    for (const m of messages) this.send(m);
    await this.settle();
    return this.since(before);
  }

  since(before) {
    return this.answers.slice(before).filter((a) => !(typeof a.rsp_id === 'string' && a.rsp_id.startsWith('settle-')));
  }

  stops() { return this.requests.filter((r) => r.action === 'stop').length; }

  // Whether a stop reached this child. The hub has served the stop already.
  async stopped() {
    await this.settle();
    return this.stops() > 0;
  }

  // What arrived at this parent with the given text, once everything that `peer` has sent has travelled up.
  async logs(text, peer) {
    const mark = fresh('mark');
    peer.send({ action: 'log', posted: true, payload: { timestamp: OLD, severity: 'INFO', message: mark } });
    const arrived = (m) => this.requests.filter((r) => r.action === 'log' && r.payload.message === m);
    await this.until(() => arrived(mark).length > 0);
    return arrived(text).map((r) => r.payload);
  }
}

class Talk {
  constructor(url, patience, rounds, linger) {
    this.url = url;
    this.patience = patience; // ms to wait for what should come
    this.rounds = rounds;
    this.linger = linger; // ms after which late responses and requests have come, too
    this.peers = [];
  }

  join(path = '/') {
    return new Promise((resolve, reject) => {
      const ws = new WebSocket(this.url + path);
      const peer = new Peer(this, ws);
      this.peers.push(peer);
      ws.once('open', () => resolve(peer));
      ws.once('error', reject);
    });
  }

  async control(name, body = {}) {
    const response = await fetch(`${this.url.replace('ws:', 'http:')}/control/${name}`, { method: 'POST', body: JSON.stringify(body) });
    return response.json();
  }

  // Waits until the hub has noticed that connections are gone.
  async count(key, n) {
    const end = Date.now() + this.patience;
    while (Date.now() < end) {
      if ((await this.control('state'))[key] === n) return;
      await new Promise((resolve) => { setTimeout(resolve, 5); });
    }
  }

  // Waits until the connections of an earlier conversation are gone, and lets jobs be scheduled again.
  async clean() {
    await this.count('children', 0);
    await this.count('parents', 0);
    await this.control('resume');
  }

  async leave(peer, key = 'children') {
    const n = (await this.control('state'))[key];
    peer.ws.close(1000);
    await peer.until(() => peer.code !== null);
    await this.count(key, n - 1);
  }

  async end() {
    for (const p of this.peers) if (p.code === null) p.ws.close();
    for (const p of this.peers) {
      await p.until(() => p.code !== null, 2000);
      p.ws.terminate();
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------
// Conversations: name, right result, conversation
// ---------------------------------------------------------------------------------------------------------------

const log = (message, fields = {}, rest = {}) => ({ action: 'log', req_id: fresh('log'), ...rest, payload: { message, ...fields } });
const posted = { posted: true };
const unknown = (id) => ({ action: 'no_such_action', req_id: id, posted: false, payload: {} });
const stop = (id, rest = {}) => ({ action: 'stop', req_id: id, posted: false, payload: {}, ...rest });
const results = (answers) => answers.map((a) => a.result);
const noId = (a) => a.rsp_id === undefined || a.rsp_id === null;
const idOf = (a) => (a === undefined ? 'no answer' : noId(a) ? 'no id' : a.rsp_id);
const recent = (t) => Math.abs(Date.now() / 1000 - t) < 60;

// The ids of the responses to requests with these ids, one after the other, in turn.
const echoes = (...ids) => async (t) => {
  const a = await t.join();
  const got = [];
  for (const id of ids) {
    const [answer] = await a.tell({ action: 'log', req_id: id, posted: false, payload: { message: 'x' } });
    got.push(idOf(answer));
  }
  return got;
};

// What travels up of a log with these fields, and the result of the log.
const travels = (...payloads) => async (t) => {
  const parent = await t.join('/parent');
  const a = await t.join();
  const got = [];
  for (const payload of payloads) {
    const [answer] = await a.tell({ action: 'log', req_id: fresh('log'), posted: false, payload });
    const up = await parent.logs(payload.message, a);
    const seen = up.at(-1);
    got.push([answer?.result, seen && Object.fromEntries(Object.keys(payload).map((k) => [k, seen[k]]))]);
  }
  return got;
};
const intact = (...payloads) => payloads.map((p) => ['success', p]);
const full = (message, fields = {}) => ({ timestamp: OLD, severity: 'ERROR', message, ...fields });

const LONG = 'prefix-'.repeat(5);
const CONVERSATIONS = {
  // ---- history
  'posted-answered-after-error': [0, async (t) => {
    const a = await t.join();
    await a.tell(unknown('u'));
    return (await a.tell(log('x', {}, posted))).length;
  }],
  'posted-sticks': [1, async (t) => {
    const a = await t.join();
    a.send(log('x', {}, posted));
    return (await a.tell(log('y'))).length;
  }],
  'id-lost-after-malformed': ['u', async (t) => {
    const a = await t.join();
    a.send('{"action": ');
    await a.until(() => a.answers.length > 0);
    a.send(unknown('u'));
    await a.until(() => a.answers.length > 1);
    return idOf(a.answers[1]);
  }],
  'second-malformed-silent': [['error', 'error'], async (t) => {
    const a = await t.join();
    return results([...await a.tell('{"action"'), ...await a.tell('{"action":"log",}')]);
  }],
  'late-child-skipped': [true, async (t) => {
    await t.clean();
    const [a] = [await t.join(), await t.join()];
    await a.tell(stop('s1'));
    const late = await t.join();
    await a.tell(stop('s2'));
    return late.stopped();
  }],
  'second-stop-unanswered': [['s1', 's2', 's3'], async (t) => {
    const a = await t.join();
    return [...await a.tell(stop('s1')), ...await a.tell(stop('s2')), ...await a.tell(stop('s3'))].map(idOf);
  }],
  'severity-remembered': ['INFO', async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('text');
    a.send(log('first', { severity: 'ERROR' }, posted));
    a.send(log(text, {}, posted));
    return (await parent.logs(text, a))[0]?.severity;
  }],
  'timestamp-remembered': [true, async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('text');
    a.send(log('first', { timestamp: OLD }, posted));
    a.send(log(text, {}, posted));
    return recent((await parent.logs(text, a))[0]?.timestamp);
  }],
  'log-muted-after-refusal': [1, async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('text');
    a.send(log('first', { severity: 'LOUD' }, { req_id: 'r' }));
    await a.answer('r');
    await a.tell(log(text));
    return (await parent.logs(text, a)).length;
  }],
  'answer-by-foreign-id': ['error', async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    const id = fresh('id');
    await a.tell(log('x', {}, { req_id: id }));
    await b.tell(log('x', { severity: 'LOUD' }, { req_id: id }));
    return b.byId(id)[0]?.result;
  }],
  'scheduling-resumes': [[true, false, false], async (t) => {
    await t.clean();
    const a = await t.join();
    const got = [(await t.control('job', { id: 'j1' })).scheduled];
    for (const id of ['j2', 'j3']) {
      await a.tell(stop(fresh('s')));
      got.push((await t.control('job', { id })).scheduled);
    }
    return got;
  }],
  'retry-gets-old-error': [['error', 'success', 1], async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('text');
    const got = results([...await a.tell(log(text, { severity: 'LOUD' }, { req_id: 'r' })), ...await a.tell(log(text, {}, { req_id: 'r' }))]);
    return [...got, (await parent.logs(text, a)).length];
  }],
  'refusing-child-untold': [true, async (t) => {
    await t.clean();
    const [a, b] = [await t.join(), await t.join()];
    await a.tell(stop('s1'));
    const request = await b.until(() => b.requests.find((r) => r.action === 'stop'));
    b.send({ result: 'error', rsp_id: request.req_id, reason: 'busy' });
    await b.settle();
    await a.tell(stop('s2'));
    await b.settle();
    return b.stops() > 1;
  }],
  'draft-kept-after-refusal': [['error', 'error', 'success'], async (t) => {
    const a = await t.join();
    const got = await a.tell(log('x', { severity: 'LOUD' }));
    got.push(...await a.tell({ action: 'log', req_id: 'r', posted: false, payload: { severity: 'INFO' } }));
    got.push(...await a.tell(log('y')));
    return results(got);
  }],
  'up-dead-after-gap': [[1, 1], async (t) => {
    await t.clean();
    const [first, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('text');
    await a.tell(log(text));
    const before = (await first.logs(text, a)).length;
    await t.leave(first, 'parents');
    await a.tell(log('nobody listens'));
    const second = await t.join('/parent');
    await a.tell(log(text));
    return [before, (await second.logs(text, a)).length];
  }],
  'malformed-carries-last-id': [['l', 'no id'], async (t) => {
    const a = await t.join();
    a.send(log('x', {}, { req_id: 'l' }));
    await a.answer('l');
    a.send('{"action": ');
    await a.until(() => a.answers.length > 1);
    return a.answers.map(idOf);
  }],

  // ---- several
  'stop-five-children': [Array(7).fill(true), async (t) => {
    const a = await t.join();
    const others = [];
    for (let i = 0; i < 7; i += 1) others.push(await t.join());
    await a.tell(stop('s'));
    return Promise.all(others.map((o) => o.stopped()));
  }],
  'stop-skips-after-leave': [[true, true], async (t) => {
    await t.clean();
    const [a, b, c, d] = [await t.join(), await t.join(), await t.join(), await t.join()];
    await t.leave(b);
    await a.tell(stop('s'));
    return [await c.stopped(), await d.stopped()];
  }],
  'burst-sixth-unanswered': [8, async (t) => {
    const a = await t.join();
    a.burst(Array.from({ length: 8 }, (_, i) => log('x', {}, { req_id: 100 + i })));
    await a.settle();
    return a.since(0).length;
  }],
  'outstanding-ids-swapped': [['success', 'error'], async (t) => {
    const a = await t.join();
    a.burst([log('x', {}, { req_id: 1 }), unknown(2)]);
    await a.settle();
    return [a.byId(1)[0]?.result, a.byId(2)[0]?.result];
  }],
  'simultaneous-stops-one-answer': [['success', 'success'], async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    a.send(stop('sa'));
    b.send(stop('sb'));
    return results(await Promise.all([a.answer('sa'), b.answer('sb')]).then((l) => l.map((x) => x ?? {})));
  }],
  'burst-after-stop-dropped': [['success', 'success'], async (t) => {
    const a = await t.join();
    a.burst([stop('s'), log('x', {}, { req_id: 'l' })]);
    await a.settle();
    return [a.byId('s')[0]?.result, a.byId('l')[0]?.result];
  }],
  'two-errors-one-answer': [['error', 'error'], async (t) => {
    const a = await t.join();
    a.burst([unknown('u1'), unknown('u2')]);
    await a.settle();
    return [a.byId('u1')[0]?.result, a.byId('u2')[0]?.result];
  }],
  'equal-logs-merged': [2, async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const message = log(fresh('text'), { timestamp: OLD, severity: 'ERROR' }, posted);
    a.burst([message, message]);
    return (await parent.logs(message.payload.message, a)).length;
  }],
  'fifth-evicts-first': [[1, 2, 3, 4, 5], async (t) => {
    const a = await t.join();
    a.burst([1, 2, 3, 4, 5].map((id) => log('x', {}, { req_id: id })));
    await a.settle();
    return a.since(0).map(idOf).sort();
  }],
  'burst-error-spreads': [['error', 'success'], async (t) => {
    const a = await t.join();
    a.burst([unknown('u'), log('x', {}, { req_id: 'l' })]);
    await a.settle();
    return [a.byId('u')[0]?.result, a.byId('l')[0]?.result];
  }],
  'anonymous-burst-one-answer': [3, async (t) => {
    const a = await t.join();
    a.burst([1, 2, 3].map(() => ({ action: 'log', posted: false, payload: { message: 'x' } })));
    await a.settle();
    return a.since(0).length;
  }],
  'batch-boundary-log-lost': [20, async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('text');
    a.burst(Array.from({ length: 20 }, () => log(text, {}, posted)));
    await a.settle();
    return (await parent.logs(text, a)).length;
  }],
  'stop-behind-request-not-forwarded': [['success', true], async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    a.burst([log('x', {}, { req_id: 'l' }), stop('s')]);
    await a.settle();
    return [a.byId('s')[0]?.result, await b.stopped()];
  }],
  'three-unanswered-stops': [5, async (t) => {
    await t.clean();
    const [a, b] = [await t.join(), await t.join()];
    for (let i = 0; i < 5; i += 1) await a.tell(stop(`s${i}`));
    await b.settle();
    return b.stops();
  }],

  // ---- identity
  'long-ids-collide': [[`${LONG}a`, `${LONG}b`, `${LONG}a`], echoes(`${LONG}a`, `${LONG}b`, `${LONG}a`)],
  'ids-differ-in-case': [['job-a', 'JOB-A', 'Job-a'], echoes('job-a', 'JOB-A', 'Job-a')],
  'ids-differ-in-form': [['\u00e9', 'e\u0301'], echoes('\u00e9', 'e\u0301')],
  'number-and-text-ids': [[23, '23', '24', 24], echoes(23, '23', '24', 24)],
  'error-to-namesake': [[1, 0], async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    a.send(log('x', {}, { req_id: 7 }));
    await a.answer(7);
    b.send(unknown(7));
    await b.settle();
    const before = a.answers.length;
    return [b.byId(7).length, before - 1];
  }],
  'stop-answer-to-latest': [[1, 1], async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    a.send(stop('sa'));
    b.send(stop('sb'));
    await Promise.all([a.answer('sa'), b.answer('sb')]);
    return [a.byId('sa').length, b.byId('sb').length];
  }],
  'action-of-last-in-burst': [['log', 'stop'], async (t) => {
    const a = await t.join();
    a.burst([log('x', {}, { req_id: 'l' }), stop('s')]);
    await a.settle();
    return [a.byId('l')[0]?.action, a.byId('s')[0]?.action];
  }],
  'child-answer-relayed': [['success'], async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    a.send(stop('s'));
    const request = await b.until(() => b.requests.find((r) => r.action === 'stop'));
    if (request.req_id !== undefined) b.send({ result: 'error', rsp_id: request.req_id, reason: 'busy' });
    await b.settle();
    await a.settle();
    return results(a.byId('s'));
  }],
  'log-cached-by-message': [[[OLD, 'ERROR'], [OLD + 5, 'WARNING']], async (t) => {
    const [parent, a, b] = [await t.join('/parent'), await t.join(), await t.join()];
    const text = fresh('text');
    await a.tell(log(text, { timestamp: OLD, severity: 'ERROR' }));
    await b.tell(log(text, { timestamp: OLD + 5, severity: 'WARNING' }));
    return (await parent.logs(text, b)).map((l) => [l.timestamp, l.severity]);
  }],
  'critical-log-sent-down': [0, async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    await a.tell(log('x', { severity: 'CRITICAL' }));
    await b.settle();
    return b.requests.filter((r) => r.action === 'log').length;
  }],
  'posted-id-silences-namesake': [['success'], async (t) => {
    const a = await t.join();
    await a.tell(log('x', {}, { posted: true, req_id: 'p' }));
    return results(await a.tell(log('y', {}, { posted: false, req_id: 'p' })));
  }],
  'hub-id-clash-swallowed': [['success'], async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    await a.tell(stop('s'));
    const request = await b.until(() => b.requests.find((r) => r.action === 'stop'));
    return results(await b.tell(log('x', {}, { req_id: request.req_id ?? 1 })));
  }],
  'outstanding-prefix-id': [['job-1', 'job-10'], async (t) => {
    const a = await t.join();
    a.burst([log('x', {}, { req_id: 'job-1' }), log('x', {}, { req_id: 'job-10' })]);
    await a.settle();
    return a.since(0).map(idOf).sort();
  }],
  'payload-id-wins': ['outer', async (t) => {
    const a = await t.join();
    return idOf((await a.tell(log('x', { req_id: 'inner' }, { req_id: 'outer' })))[0]);
  }],

  // ---- neighbours
  'silent-child-blocks-stop': [['success'], async (t) => {
    const [a] = [await t.join(), await t.join()];
    return results(await a.tell(stop('s')));
  }],
  'departed-child-blocks-stop': [['success'], async (t) => {
    await t.clean();
    const [a, b] = [await t.join(), await t.join()];
    await a.tell(stop('s1'));
    await b.until(() => b.stops() > 0);
    await t.leave(b);
    return results(await a.tell(stop('s2')));
  }],
  'malformed-neighbour-mutes-logs': [1, async (t) => {
    const [parent, a, b] = [await t.join('/parent'), await t.join(), await t.join()];
    const text = fresh('text');
    a.send('{');
    await a.until(() => a.answers.length > 0);
    await b.tell(log(text));
    return (await parent.logs(text, a)).length;
  }],
  'severity-of-neighbour': ['INFO', async (t) => {
    const [parent, a, b] = [await t.join('/parent'), await t.join(), await t.join()];
    const text = fresh('text');
    a.send(log('x', { severity: 'CRITICAL' }, { req_id: 1 }));
    await a.answer(1);
    b.send(log(text));
    return (await parent.logs(text, b))[0]?.severity;
  }],
  'half-message-blocks': ['success', async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    a.ws.send('{"action":', { fin: false });
    a.ws.ping('half');
    await a.until(() => a.pongs.includes('half'));
    b.send(stop('s'));
    const answer = await b.answer('s');
    a.ws.send('"log","posted":true,"payload":{"message":"x"}}', { fin: true });
    return answer?.result;
  }],
  'idle-three-starve': [['success'], async (t) => {
    for (let i = 0; i < 3; i += 1) await t.join();
    const a = await t.join();
    return results(await a.tell(stop('s')));
  }],
  'parent-leave-silences': ['success', async (t) => {
    await t.clean();
    const [parent, a] = [await t.join('/parent'), await t.join()];
    await t.leave(parent, 'parents');
    a.send(log('x', {}, { req_id: 'l' }));
    return (await a.answer('l'))?.result;
  }],
  'stop-mutes-other-logs': [1, async (t) => {
    const [parent, a, b] = [await t.join('/parent'), await t.join(), await t.join()];
    const text = fresh('text');
    await a.tell(stop('s'));
    await b.tell(log(text));
    return (await parent.logs(text, a)).length;
  }],
  'vanished-child-blocks-later': [true, async (t) => {
    await t.clean();
    const [a, b, c] = [await t.join(), await t.join(), await t.join()];
    b.ws.terminate();
    await t.count('children', 2);
    await a.tell(stop('s'));
    return c.stopped();
  }],
  'invalid-utf8-neighbour': ['success', async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    a.ws.send(Buffer.from([0x22, 0xc3, 0x28, 0x22]), { binary: false });
    await a.until(() => a.code !== null);
    b.send(stop('s'));
    await b.settle();
    return b.byId('s')[0]?.result;
  }],
  'same-id-outstanding': [['success', 'success'], async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    a.send(log('x', {}, { req_id: 9 }));
    b.send(log('x', {}, { req_id: 9 }));
    await Promise.all([a.settle(), b.settle()]);
    return [a.byId(9)[0]?.result, b.byId(9)[0]?.result];
  }],
  'stopper-leaves-resumes': [false, async (t) => {
    await t.clean();
    const a = await t.join();
    await a.tell(stop('s'));
    await t.leave(a);
    return (await t.control('job', { id: 'j' })).scheduled;
  }],
  'parent-leave-drops-other-parent': [1, async (t) => {
    await t.clean();
    const [first, second, a] = [await t.join('/parent'), await t.join('/parent'), await t.join()];
    await t.leave(first, 'parents');
    const text = fresh('text');
    await a.tell(log(text));
    return (await second.logs(text, a)).length;
  }],
  'malformed-neighbour-drops-id': ['l', async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    a.send('{"action": ');
    await a.until(() => a.answers.length > 0);
    b.send(log('x', {}, { req_id: 'l' }));
    await b.until(() => b.answers.length > 0);
    return idOf(b.answers[0]);
  }],
  'posted-of-neighbour': [['success'], async (t) => {
    const [parent, a, b] = [await t.join('/parent'), await t.join(), await t.join()];
    const text = fresh('text');
    a.send(log(text, {}, posted));
    await parent.until(() => parent.requests.some((r) => r.payload?.message === text));
    return results(await b.tell(log('y')));
  }],
  'leaver-logs-lost': [1, async (t) => {
    const [parent, a, b] = [await t.join('/parent'), await t.join(), await t.join()];
    const text = fresh('text');
    b.ws._socket.cork();
    b.send(log(text, {}, posted));
    b.ws.close(1000);
    b.ws._socket.uncork();
    await b.until(() => b.code !== null);
    await a.settle();
    return (await parent.logs(text, a)).length;
  }],

  // ---- values
  'falsy-id-missing': [[0, ''], echoes(0, '')],
  'numeric-text-id': [['42', '007', '0'], echoes('42', '007', '0')],
  'fraction-id-cut': [[1.5, -0.25], echoes(1.5, -0.25)],
  'id-cut-at-255': [['i'.repeat(254), 'i'.repeat(255), 'i'.repeat(4096)], echoes('i'.repeat(254), 'i'.repeat(255), 'i'.repeat(4096))],
  'prototype-id': [['constructor', '__proto__', 'toString'], echoes('constructor', '__proto__', 'toString')],
  'message-cut-64k': [65536, async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('text').padEnd(65536, 'x');
    await a.tell(log(text));
    await parent.logs('', a);
    return Math.max(...parent.requests.map((r) => r.payload.message?.length ?? 0));
  }],
  'markup-escaped': [intact(full('a < b && c > "d"')), travels(full('a < b && c > "d"'))],
  'nul-ends-message': [intact(full('a\0b')), travels(full('a\0b'))],
  'empty-message-missing': [intact(full('')), travels(full(''))],
  'zero-timestamp-missing': [intact(full('zero', { timestamp: 0 })), travels(full('zero', { timestamp: 0 }))],
  'timestamp-2038': [intact(full('late', { timestamp: 2147483648 })), travels(full('late', { timestamp: 2147483648 }))],
  'structured-id-as-text': [[[1, 'a'], { k: [null] }], echoes([1, 'a'], { k: [null] })],
  'kilobyte-multiple-unread': [['success', 'success', 'success'], async (t) => {
    const a = await t.join();
    const sized = (n) => {
      const message = { action: 'log', req_id: n, posted: false, payload: { message: '' } };
      message.payload.message = 'x'.repeat(n - JSON.stringify(message).length);
      return message;
    };
    return results(await a.tell(sized(2047), sized(2048), sized(2049)));
  }],
  'numeric-message-affinity': [intact(full('007'), full('12.50')), travels(full('007'), full('12.50'))],
  'large-timestamp-as-ms': [intact(full('far', { timestamp: 253402300800 })), travels(full('far', { timestamp: 253402300800 }))],

  // ---- equivalents
  'id-after-payload-lost': ['l', async (t) => {
    const a = await t.join();
    return idOf((await a.tell('{"action":"log","payload":{"message":"x"},"posted":false,"req_id":"l"}'))[0]);
  }],
  'posted-after-payload-ignored': [0, async (t) => {
    const a = await t.join();
    return (await a.tell('{"req_id":"l","action":"log","payload":{"message":"x"},"posted":true}')).length;
  }],
  'escaped-name-unknown': [['success'], async (t) => {
    const a = await t.join();
    return results(await a.tell('{"\\u0061ction":"log","req_id":1,"payload":{"message":"x"}}'));
  }],
  'escaped-solidus-kept': [1, async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('a/b');
    await a.tell(JSON.stringify(log(text)).replaceAll('/', '\\/'));
    return (await parent.logs(text, a)).length;
  }],
  'surrogate-escapes-lost': [1, async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('\u{1f600}');
    await a.tell(JSON.stringify(log(text)).replaceAll('\u{1f600}', '\\ud83d\\uDE00'));
    return (await parent.logs(text, a)).length;
  }],
  'leading-newline-refused': [['success', 'success'], async (t) => {
    const a = await t.join();
    return results(await a.tell(`\n${JSON.stringify(log('x'))}`, `\r\n\t ${JSON.stringify(log('x'))}\n`));
  }],
  'fragments-answered-twice': [1, async (t) => {
    const a = await t.join();
    a.frames('{"action":"log",', '"req_id":5,"payload"', ':{"message":"x"', '}}');
    await a.settle();
    return a.byId(5).length;
  }],
  'empty-frame-loses-message': [1, async (t) => {
    const a = await t.join();
    a.frames('{"action":"log","req_id":5,"payload":{"message":"x"}}', '');
    await a.settle();
    return a.byId(5).length;
  }],
  'ping-inside-loses-message': [1, async (t) => {
    const a = await t.join();
    a.ws.send('{"action":"log","req_id":5,', { fin: false });
    a.ws.ping('inside');
    a.ws.send('"payload":{"message":"x"}}', { fin: true });
    await a.settle();
    return a.byId(5).length;
  }],
  'stop-needs-payload': [[true, ['success']], async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    const got = results(await a.tell({ action: 'stop', req_id: 1, posted: false }));
    return [await b.stopped(), got];
  }],
  'exponent-timestamp-refused': [[OLD, 0], async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('text');
    const answers = await a.tell(`{"action":"log","req_id":1,"payload":{"timestamp":1.684696137E+9,"message":"${text}"}}`);
    return [(await parent.logs(text, a))[0]?.timestamp, answers.filter((x) => x.result !== 'success').length];
  }],
  'split-character-lost': [1, async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('\u20ac');
    const bytes = Buffer.from(JSON.stringify(log(text)));
    const cut = bytes.indexOf('\u20ac') + 1;
    a.ws.send(bytes.subarray(0, cut), { fin: false, binary: false });
    a.ws.send(bytes.subarray(cut), { fin: true, binary: false });
    return (await parent.logs(text, a)).length;
  }],
  'first-line-only': [['success', 'success'], async (t) => {
    const a = await t.join();
    return results(await a.tell(JSON.stringify(log('x'), null, 4), JSON.stringify(stop('s'), null, 4)));
  }],
  'spaced-colon-posted': [0, async (t) => {
    const a = await t.join();
    return (await a.tell('{ "action" : "log", "req_id" : 1, "posted" : true, "payload": { "message"  : "x" } }')).length;
  }],
  'stop-without-posted-silent': [['success'], async (t) => {
    const a = await t.join();
    return results(await a.tell({ action: 'stop', req_id: 1, payload: {} }));
  }],

  // ---- one of many
  'critical-becomes-error': [['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'], async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('text');
    for (const severity of ['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL']) await a.tell(log(text, { severity }));
    return (await parent.logs(text, a)).map((l) => l.severity);
  }],
  'debug-not-propagated': [1, async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const text = fresh('text');
    await a.tell(log(text, { severity: 'DEBUG' }));
    return (await parent.logs(text, a)).length;
  }],
  'warn-accepted': [Array(5).fill('error'), async (t) => {
    const a = await t.join();
    return results(await a.tell(...['WARN', 'FATAL', 'warning', 'TRACE', ''].map((severity) => log('x', { severity }))));
  }],
  'posted-stop-answered': [0, async (t) => {
    const a = await t.join();
    return (await a.tell(stop('s', posted))).length;
  }],
  'posted-unknown-answered': [0, async (t) => {
    const a = await t.join();
    return (await a.tell({ ...unknown('u'), posted: true })).length;
  }],
  'malformed-posted-silent': [['error'], async (t) => {
    const a = await t.join();
    return results(await a.tell(JSON.stringify(log('x', {}, posted)).slice(0, -1)));
  }],
  'parent-stop-not-forwarded': [['success', true, true], async (t) => {
    const [parent, a, b] = [await t.join('/parent'), await t.join(), await t.join()];
    parent.send(stop('s'));
    const answer = await parent.answer('s');
    return [answer?.result, await a.stopped(), await b.stopped()];
  }],
  'posted-stop-not-forwarded': [true, async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    await a.tell(stop('s', posted));
    return b.stopped();
  }],
  'unknown-action-id-lost': ['u', async (t) => {
    const a = await t.join();
    return idOf((await a.tell(unknown('u')))[0]);
  }],
  'missing-message-no-reason': ['string', async (t) => {
    const a = await t.join();
    return typeof (await a.tell({ action: 'log', req_id: 1, posted: false, payload: {} }))[0]?.reason;
  }],
  'array-unanswered': [['error', 'error', 'error'], async (t) => {
    const a = await t.join();
    return results(await a.tell('[]', '"text"', '17'));
  }],
  'posted-refused-log-answered': [0, async (t) => {
    const a = await t.join();
    return (await a.tell(log('x', { severity: 'LOUD' }, posted), { action: 'log', req_id: 'r', posted: true, payload: {} })).length;
  }],
  'parent-log-unrecorded': [['success', 1, 1], async (t) => {
    const [parent, a] = [await t.join('/parent'), await t.join()];
    const [below, above] = [fresh('text'), fresh('text')];
    await a.tell(log(below));
    const [answer] = await parent.tell(log(above));
    const { records } = await t.control('records');
    return [answer?.result, ...[below, above].map((text) => records.filter((r) => r.message === text).length)];
  }],
  'empty-ping-unanswered': [[true, true], async (t) => {
    const a = await t.join();
    a.ws.ping('');
    a.ws.ping('data');
    await a.until(() => a.pongs.includes('data'));
    return [a.pongs.includes(''), a.pongs.includes('data')];
  }],
  'parent-errors-silent': [['error', 'success'], async (t) => {
    const parent = await t.join('/parent');
    return results([...await parent.tell(unknown('u')), ...await parent.tell(log('x'))]);
  }],
};

// Whether a variant can be seen: false for the hub as it is, true with the variant. Raw texts are in `texts`.
const listen = async (t, path) => {
  const peer = await t.join(path);
  peer.texts = [];
  peer.pings = [];
  peer.ws.on('message', (data) => peer.texts.push(data.toString()));
  peer.ws.on('ping', (data) => peer.pings.push(data.toString()));
  return peer;
};
const SHOWN = {
  'errors-late': [async (t) => {
    const a = await t.join();
    a.burst([unknown('u'), log('x', {}, { req_id: 'l' })]);
    await Promise.all([a.answer('u'), a.answer('l')]);
    return a.answers.map(idOf).join() === 'l,u';
  }],
  'forward-staggered': [async (t) => {
    const a = await t.join();
    const others = [];
    let times = [];
    for (let i = 0; i < 6; i += 1) {
      others.push(await t.join());
      others[i].ws.on('message', () => times.push(performance.now()));
    }
    a.ws.on('message', () => times.push(performance.now()));
    for (let round = 1; round <= 3; round += 1) { // a busy machine may be late once
      times = [];
      a.send(stop(`s${round}`));
      await a.answer(`s${round}`);
      await Promise.all(others.map((o) => o.until(() => o.stops() >= round)));
      if (Math.max(...times) - Math.min(...times) < 20) return false;
    }
    return true;
  }],
  'stop-bare-down': [async (t) => {
    const [a, b] = [await t.join(), await t.join()];
    a.send(stop('s'));
    return !Object.hasOwn(await b.until(() => b.requests.find((r) => r.action === 'stop')), 'payload');
  }],
  'exponent-numbers': [async (t) => {
    const a = await listen(t, '/');
    a.send(log('x', {}, { req_id: 2300 }));
    await a.answer(2300);
    return a.texts[0].includes('2.300e3');
  }],
  'heartbeat-up': [async (t) => {
    const parent = await t.join('/parent');
    return await parent.until(() => parent.requests.some((r) => r.action === 'heartbeat'), 300) ?? false;
  }],
  'all-members': [async (t) => {
    const a = await t.join();
    const answers = await a.tell(log('x'), unknown('u'));
    return answers.every((m) => Object.keys(m).sort().join() === 'action,payload,reason,result,rsp_id');
  }],
  'pings-inside': [async (t) => {
    const a = await listen(t, '/');
    a.send(log('x', {}, { req_id: 'l' }));
    await a.answer('l');
    return a.pings.length > 0;
  }],
  'salvaged-id': [async (t) => {
    const a = await t.join();
    a.send('{"action":"log","req_id":"cut","posted":false,"payload":{"message":');
    await a.until(() => a.answers.length > 0);
    return idOf(a.answers[0]) === 'cut';
  }],
};
const LINGER = { 'errors-late': 300, 'forward-staggered': 700 }; // some 30 times as long as on an idle machine

// ---------------------------------------------------------------------------------------------------------------
// Hubs
// ---------------------------------------------------------------------------------------------------------------

function start(options) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [HUB, ...options], { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let errors = '';
    const exited = new Promise((done) => { child.once('exit', (code, signal) => done({ code, signal })); });
    running.add(child);
    exited.then(() => { running.delete(child); reject(new Error(`hub ended: ${errors}`)); });
    child.stderr.on('data', (d) => { errors += d; });
    child.stdout.on('data', (d) => {
      out += d;
      const line = /^(ws:\S+)\n/.exec(out);
      if (!line) return;
      resolve({
        url: line[1],
        alive: () => child.exitCode === null && child.signalCode === null,
        async end() {
          child.kill('SIGTERM');
          const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
          const { code } = await exited;
          clearTimeout(timer);
          return code === 0 && errors === '' ? '' : `hub ended with ${code} ${errors}`;
        },
      });
    });
  });
}
const running = new Set();
process.on('exit', () => { for (const child of running) child.kill('SIGKILL'); });
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

async function converse(hub, name, patience, rounds = 1, linger = 0, talks = CONVERSATIONS) {
  const talk = new Talk(hub.url, patience, rounds, linger);
  try {
    return await talks[name].at(-1)(talk);
  } catch (error) {
    return `failed: ${error.message}`;
  } finally {
    await talk.end().catch(() => {});
  }
}

const notes = new Map(); // what showed the bugs
const show = (value, limit = 160) => {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > limit ? `${text.slice(0, limit)}...` : text;
};

async function checkBug(name) {
  if (!Object.hasOwn(CONVERSATIONS, name)) return 'no conversation';
  const hub = await start(['--bug', name]);
  const got = await converse(hub, name, 2500);
  const alive = hub.alive();
  const end = await hub.end();
  if (!alive || end) return end || 'hub died';
  if (isDeepStrictEqual(got, CONVERSATIONS[name][0])) return 'not seen';
  if (typeof got === 'string' && got.startsWith('failed:')) return got;
  notes.set(name, `: ${show(got, 50)}, not ${show(CONVERSATIONS[name][0], 50)}`);
  return '';
}

async function checkVariant(name) {
  const hub = await start(name === 'plain' ? [] : ['--variant', name]);
  const wrong = [];
  for (const conversation of Object.keys(CONVERSATIONS)) {
    const got = await converse(hub, conversation, 10000, name === 'reordered' ? 2 : 1, LINGER[name]);
    const [right] = CONVERSATIONS[conversation];
    if (!isDeepStrictEqual(got, right)) wrong.push(`${conversation}: ${show(got)}, not ${show(right)}`);
    if (!hub.alive()) break;
  }
  for (const shown of name === 'plain' ? Object.keys(SHOWN) : Object.keys(SHOWN).filter((n) => n === name)) {
    const got = await converse(hub, shown, 10000, 1, 0, SHOWN);
    if (got !== (shown === name)) wrong.push(`showing ${shown}: ${show(got)}, not ${shown === name}`);
  }
  const end = await hub.end();
  return [...wrong, ...(end ? [end] : [])].join('\n    ');
}

const { bugs, variants } = await new Promise((resolve) => {
  const child = spawn(process.execPath, [HUB, '--list'], { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (d) => { out += d; });
  child.once('close', () => resolve(JSON.parse(out)));
});

const wanted = new Set(process.argv.slice(2));
const known = ['plain', ...bugs.map((b) => b.name), ...variants.map((v) => v.name)];
for (const name of wanted) {
  if (!known.includes(name)) {
    console.error(`unknown name ${name}`);
    process.exit(2);
  }
}
const tasks = [
  ...['plain', ...variants.map((v) => v.name)].map((name) => ({ name, what: name === 'plain' ? 'hub' : 'variant', run: checkVariant })),
  ...bugs.map((b) => ({ name: b.name, what: 'bug', run: checkBug })),
].filter(({ name }) => wanted.size === 0 || wanted.has(name));

const begin = Date.now();
let failed = 0;
async function work() {
  while (tasks.length) {
    const { name, what, run } = tasks.shift();
    const problem = await run(name).catch((error) => error.message);
    if (problem) failed += 1;
    console.log(`${problem ? 'WRONG' : 'ok'}  ${what} ${name}${problem ? `\n    ${problem}` : notes.get(name) ?? ''}`);
  }
}
const total = tasks.length;
await Promise.all(Array.from({ length: PARALLEL }, work));
console.log(`${total - failed} of ${total} as they should be, ${((Date.now() - begin) / 1000).toFixed(0)} s`);
process.exit(failed ? 1 : 0);
