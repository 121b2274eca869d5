#!/usr/bin/env node
// Self-test of the hub: node selftest.mjs [NAME...] with names of bugs and variants; without names, all.

import { spawn } from 'node:child_process';
import http from 'node:http';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual as same } from 'node:util';
import WebSocket from 'ws';
import { bugs, startHub, variants } from './hub.mjs';

const PATIENCE = 60000; // ms until something that should happen is taken for missing
const SEMVER = /^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/;
const UUID = 'eb4fdc2c-755b-47d8-af76-bbca2dce554d';

function patient(promise, what) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`no ${what}`)), PATIENCE); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// What is wrong with a message, judged by itself; null if nothing is.
function fault(m) {
  if (m === null || typeof m !== 'object' || Array.isArray(m)) return 'not an object';
  const has = (k) => Object.hasOwn(m, k);
  if (typeof m.version !== 'string' || !SEMVER.test(m.version)) return 'version';
  const dict = (v) => v !== null && typeof v === 'object' && !Array.isArray(v);
  if (has('command')) {
    if (typeof m.command !== 'string' || has('session_id') || has('status')) return 'published message';
    return has('payload') && !dict(m.payload) ? 'payload' : null;
  }
  if (has('session_id') && typeof m.session_id !== 'string') return 'session_id';
  if (m.status === 'success') return has('payload') && !dict(m.payload) ? 'payload' : null;
  if (m.status === 'failure') return typeof m.payload !== 'string' ? 'payload' : null;
  return 'status';
}

const request = (command, { id, payload, version = '0.1.0' } = {}) => JSON.stringify({ session_id: id, command, payload, version });

class Client {
  constructor(url, faults) {
    this.inbox = [];
    this.raw = [];
    this.pongs = 0;
    this.ws = new WebSocket(url, { perMessageDeflate: true });
    this.opened = new Promise((resolve, reject) => { this.ws.once('open', resolve); this.ws.once('error', reject); });
    this.closed = new Promise((resolve) => { this.ws.once('close', (code) => { this.code = code; resolve(code); }); });
    this.ws.on('error', () => {});
    this.ws.on('message', (data) => {
      const text = data.toString();
      const m = JSON.parse(text);
      this.raw.push(text);
      this.inbox.push(m);
      const what = fault(m);
      if (what) faults.push(`${what}: ${text.slice(0, 200)}`);
    });
  }

  send(...texts) { for (const text of texts) if (this.ws.readyState === 1) this.ws.send(text); }

  sendFrames(...parts) {
    parts.forEach((part, i) => this.ws.send(part, { binary: false, fin: i === parts.length - 1 }));
  }

  // Resolves when the hub has read all that was sent (or the connection is closed).
  async read() {
    if (this.ws.readyState !== 1) return;
    const mark = `mark-${++this.pongs}`;
    let listener;
    const pong = new Promise((resolve) => {
      listener = (data) => { if (data.toString() === mark) resolve(); };
      this.ws.on('pong', listener);
    });
    this.ws.ping(mark, true, () => {});
    await patient(Promise.race([pong, this.closed]), 'pong');
    this.ws.off('pong', listener);
  }

  all(id) { return this.inbox.filter((m) => m.session_id === id); }
  one(id) { const found = this.all(id); return found.length === 1 ? found[0] : null; }
  get base() { return this.inbox.filter((m) => !('session_id' in m) && 'status' in m); }
  get published() { return this.inbox.filter((m) => 'command' in m); }
}

// What a conversation works with.
class Talk {
  constructor(hub) { this.hub = hub; this.clients = []; this.faults = []; this.agent = hub.agent; }

  async connect(path = '') {
    const client = new Client(`ws://127.0.0.1:${this.hub.port}/${path}`, this.faults);
    this.clients.push(client);
    await patient(client.opened, 'connection');
    return client;
  }

  control(name, body = {}) {
    const answer = new Promise((resolve, reject) => {
      const r = http.request({ host: '127.0.0.1', port: this.hub.port, path: `/control/${name}`, method: 'POST', agent: this.agent }, (response) => {
        let text = '';
        response.on('data', (d) => { text += d; });
        response.on('end', () => {
          if (response.statusCode === 200) resolve(JSON.parse(text));
          else reject(new Error(`${name}: ${response.statusCode} ${text}`));
        });
      });
      r.on('error', reject);
      r.end(JSON.stringify(body));
    });
    return patient(answer, `answer to ${name}`);
  }

  // Resolves when the hub has read everything and n requests are outstanding.
  async outstanding(n) {
    for (const c of this.clients) await c.read();
    const { outstanding } = await this.control('wait', { outstanding: n, timeout_ms: PATIENCE / 2 });
    if (outstanding !== n) throw new Error(`${outstanding} outstanding, not ${n}`);
  }

  // Resolves when every reply that was to come has come.
  async settle() {
    await this.outstanding(0);
    for (const c of this.clients) await c.read();
  }

  async leave(client, code) {
    client.ws.close(code);
    await patient(client.closed, 'close');
    this.clients = this.clients.filter((c) => c !== client && c.ws.readyState === 1);
    await this.control('wait', { connections: this.clients.length, timeout_ms: PATIENCE / 2 });
  }

  hold(command) { return this.control('hold', { command }); }

  async release(command, order = 'arrival') {
    await this.control('release', { command, order });
    await this.settle();
  }

  // One request after the other on a connection, each after the reply to the one before.
  async steps(client, ...texts) {
    for (const text of texts) { client.send(text); await this.settle(); }
  }

  async end() {
    await this.control('reset');
    for (const c of this.clients) c.ws.close(1000);
    for (const c of this.clients) await patient(c.closed, 'close');
    await this.control('wait', { connections: 0, timeout_ms: PATIENCE / 2 });
  }
}

const ok = (m) => m?.status === 'success';
const failed = (m) => m?.status === 'failure';
const returns = (m, key, value) => ok(m) && m.payload?.[key] === value;
const execute = (id, payload) => request('execute', { id, payload });

// execute gives these arguments back.
const gives = (payload) => async (t) => {
  const c = await t.connect();
  await t.steps(c, execute('a', payload));
  return ok(c.one('a')) && same(c.one('a').payload, payload);
};
// The reply to an extended request with this session_id copies it.
const copies = (id) => async (t) => {
  const c = await t.connect();
  await t.steps(c, request('get_static', { id }));
  return c.inbox.length === 1 && ok(c.one(id));
};
// The reply to this text has this session_id.
const serves = (text, id) => async (t) => {
  const c = await t.connect();
  await t.steps(c, text);
  return c.inbox.length === 1 && ok(c.one(id));
};
// Outstanding executes with these ids on one connection each get their own values.
const together = (ids, order = 'arrival') => async (t) => {
  const c = await t.connect();
  await t.hold('execute');
  c.send(...ids.map((id, n) => execute(id, { n })));
  await t.outstanding(ids.length);
  await t.release('execute', order);
  return c.inbox.length === ids.length && ids.every((id, n) => returns(c.one(id), 'n', n));
};
// Requests with these ids, one after the other.
const oneByOne = (...ids) => async (t) => {
  const c = await t.connect();
  await t.steps(c, ...ids.map((id, n) => execute(id, { n })));
  return c.inbox.length === ids.length && ids.every((id, n) => returns(c.one(id), 'n', n));
};
// Commands of the operator are told apart.
const commands = (...names) => async (t) => {
  for (const [n, command] of names.entries()) await t.control('define', { command, returns: { n } });
  const c = await t.connect();
  await t.steps(c, ...names.map((command) => request(command, { id: `id ${command}` })));
  return names.every((command, n) => returns(c.one(`id ${command}`), 'n', n));
};

const LONG = 'abcdefghijklmnopqrstuvwxyz012345';

const TESTS = {
  // history
  'id-lost-after-malformed': async (t) => {
    const c = await t.connect();
    await t.steps(c, '{"command": ', request('get_static', { id: 'a' }));
    return c.code !== undefined || ok(c.one('a'));
  },
  'failure-text-in-success': async (t) => {
    const c = await t.connect();
    await t.steps(c, execute('a', { fail: 'no' }), request('initialize', { id: 'b' }));
    return failed(c.one('a')) && ok(c.one('b')) && typeof c.one('b').payload !== 'string';
  },
  'failed-id-not-retried': async (t) => {
    const c = await t.connect();
    await t.steps(c, execute('a', { fail: 'no' }), execute('a', { n: 1 }));
    return c.all('a').length === 2 && returns(c.all('a')[1], 'n', 1);
  },
  'answer-cached-by-id': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.steps(a, execute('same', { n: 1 }));
    await t.steps(b, execute('same', { n: 2 }));
    return returns(a.one('same'), 'n', 1) && returns(b.one('same'), 'n', 2);
  },
  'base-reply-with-failed-id': async (t) => {
    const c = await t.connect();
    await t.steps(c, execute('a', { fail: 'no' }), request('get_static'));
    return failed(c.one('a')) && c.base.length === 1 && ok(c.base[0]);
  },
  'version-taken-over': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('get_static', { id: 'a', version: 'one' }), request('get_static', { id: 'b' }));
    return SEMVER.test(c.one('b')?.version);
  },
  'dynamic-frozen': async (t) => {
    const c = await t.connect();
    for (const n of [1, 2, 3, 4]) {
      await t.control('dynamic', { n });
      await t.steps(c, request('get_dynamic', { id: `i${n}` }));
    }
    return [1, 2, 3, 4].every((n) => returns(c.one(`i${n}`), 'n', n));
  },
  'seventh-failure-undescribed': async (t) => {
    const c = await t.connect();
    c.send(...[1, 2, 3, 4, 5, 6].map((n) => execute(`i${n}`, { fail: 'no' })));
    await t.steps(c, execute('last', { fail: 'no' }));
    return failed(c.one('i6')) && failed(c.one('last')) && typeof c.one('last').payload === 'string';
  },
  'outcome-remembered': async (t) => {
    const c = await t.connect();
    await t.control('outcome', { command: 'get_static', failure: 'out of order' });
    await t.steps(c, request('get_static', { id: 'a' }));
    await t.control('outcome', { command: 'get_static', failure: null });
    await t.steps(c, request('get_static', { id: 'b' }));
    return failed(c.one('a')) && ok(c.one('b'));
  },
  'arguments-kept': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('calibrate', { id: 'a', payload: { n: 1 } }), request('calibrate', { id: 'b' }));
    return returns(c.one('a'), 'n', 1) && returns(c.one('b'), 'n', undefined);
  },
  'third-equal-text-lost': async (t) => {
    const c = await t.connect();
    const text = request('get_static');
    await t.steps(c, text, text, text);
    return c.base.length === 3 && c.base.every(ok);
  },

  // several
  'sixth-outstanding-lost': together(['a', 'b', 'c', 'd', 'e', 'f']),
  'fifth-evicts-first': together(['a', 'b', 'c', 'd', 'e']),
  'ids-in-arrival-order': together(['a', 'b'], 'reverse'),
  'equal-outstanding-id-once': async (t) => {
    const c = await t.connect();
    await t.hold('execute');
    c.send(execute('same', { n: 1 }), execute('same', { n: 2 }));
    await t.outstanding(2);
    await t.release('execute');
    return c.all('same').map((m) => m.payload?.n).sort().join() === '1,2';
  },
  'publish-drops-request': async (t) => {
    const c = await t.connect();
    await t.hold('execute');
    c.send(execute('a', { n: 1 }), execute('b', { n: 2 }));
    await t.outstanding(2);
    await t.control('publish', { command: 'notice', payload: { n: 3 } });
    await t.release('execute');
    return returns(c.one('a'), 'n', 1) && returns(c.one('b'), 'n', 2);
  },
  'publish-twice': async (t) => {
    const cs = [await t.connect(), await t.connect(), await t.connect()];
    const { sent } = await t.control('publish', { command: 'notice', payload: { n: 3 } });
    await t.settle();
    return cs.every((c) => c.inbox.length === (sent ? 1 : 0) && c.published.every((m) => m.payload.n === 3));
  },
  'failures-merged': async (t) => {
    const c = await t.connect();
    await t.hold('execute');
    c.send(execute('a', { fail: 'reason-one' }), execute('b', { fail: 'reason-two' }));
    await t.outstanding(2);
    await t.release('execute');
    return failed(c.one('a')) && failed(c.one('b'))
      && !c.one('a').payload.includes('reason-two') && !c.one('b').payload.includes('reason-one');
  },
  'failure-spreads': async (t) => {
    const c = await t.connect();
    await t.hold('execute');
    c.send(execute('a', { fail: 'no' }), execute('b', { n: 1 }), execute('c', { n: 2 }));
    await t.outstanding(3);
    await t.release('execute');
    return failed(c.one('a')) && returns(c.one('b'), 'n', 1) && returns(c.one('c'), 'n', 2);
  },
  'base-takes-outstanding-id': async (t) => {
    const c = await t.connect();
    await t.hold('execute');
    c.send(execute('a', { n: 1 }), request('get_static'));
    for (const x of t.clients) await x.read();
    await t.release('execute');
    return returns(c.one('a'), 'n', 1) && c.base.length === 1 && ok(c.base[0]);
  },
  'arguments-of-other-command': async (t) => {
    const c = await t.connect();
    await t.hold('execute');
    c.send(execute('a', { n: 1 }), request('calibrate', { id: 'b', payload: { n: 2 } }));
    for (const x of t.clients) await x.read();
    await t.release('execute');
    return returns(c.one('a'), 'n', 1) && returns(c.one('b'), 'n', 2);
  },

  // identity
  'id-by-32-characters': together([LONG + '1', LONG + '2']),
  'id-case-folded': oneByOne('Job-a', 'job-A'),
  'id-unicode-form': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(execute('e\u0301', { n: 1 }));
    await t.outstanding(1);
    b.send(execute('\u00e9', { n: 2 }));
    await t.outstanding(2);
    await t.release('execute');
    return returns(a.one('e\u0301'), 'n', 1) && returns(b.one('\u00e9'), 'n', 2);
  },
  'id-trimmed-key': together(['a', 'a ', '\ta']),
  'id-numeric-key': oneByOne('7', '007'),
  'uuid-lower-case': copies(UUID.toUpperCase()),
  'late-failure-latest-id': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(execute('a', { fail: 'no' }));
    await t.outstanding(1);
    b.send(execute('b', { n: 1 }));
    await t.outstanding(2);
    await t.release('execute');
    return failed(a.one('a')) && returns(b.one('b'), 'n', 1);
  },
  'reply-of-the-departed': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(execute('same', { n: 1 }));
    await t.outstanding(1);
    await t.leave(a);
    b.send(execute('same', { n: 2 }));
    await b.read();
    await t.release('execute');
    return returns(b.one('same'), 'n', 2);
  },
  'same-id-two-clients': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(execute('same', { n: 1 }));
    await t.outstanding(1);
    b.send(execute('same', { n: 2 }));
    await t.outstanding(2);
    await t.release('execute');
    return returns(a.one('same'), 'n', 1) && returns(b.one('same'), 'n', 2);
  },
  'command-case-folded': commands('Measure', 'measure', 'MEASURE'),
  'command-by-32-characters': commands(LONG + 'a', LONG + 'b'),

  // neighbours
  'disconnect-cancels-others': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(execute('a', { n: 1 }));
    b.send(execute('b', { n: 2 }));
    await t.outstanding(2);
    await t.leave(a);
    await t.release('execute');
    return returns(b.one('b'), 'n', 2);
  },
  'successor-unanswered': async (t) => {
    const a = await t.connect();
    await t.hold('execute');
    a.send(execute('a', { n: 1 }));
    await t.outstanding(1);
    await t.leave(a);
    await t.release('execute');
    const b = await t.connect();
    await t.steps(b, request('get_static', { id: 'b' }));
    return ok(b.one('b'));
  },
  'malformed-fails-neighbour': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.steps(a, '[1, 2');
    await t.steps(b, request('get_static', { id: 'b' }));
    return ok(b.one('b'));
  },
  'id-in-use-elsewhere': async (t) => TESTS['same-id-two-clients'](t),
  'failure-after-failure-object': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.steps(a, execute('a', { fail: 'no' }));
    await t.steps(b, execute('b', { fail: 'no' }));
    return failed(b.one('b')) && typeof b.one('b').payload === 'string';
  },
  'eldest-leaves-no-version': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.leave(a);
    await t.steps(b, request('get_static', { id: 'b' }));
    return ok(b.one('b')) && SEMVER.test(b.one('b').version);
  },
  'silent-newcomer-no-values': async (t) => {
    const a = await t.connect();
    await t.connect();
    await t.steps(a, execute('a', { n: 1 }));
    return returns(a.one('a'), 'n', 1);
  },
  'private-code-closes-others': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(execute('a', { n: 1 }));
    await t.outstanding(1);
    b.ws.close(4001);
    await patient(b.closed, 'close');
    await a.read();
    await t.release('execute');
    return returns(a.one('a'), 'n', 1) && a.code === undefined;
  },
  'terminate-of-neighbour': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(execute('a', { n: 1 }));
    await t.outstanding(1);
    b.send(request('terminate', { id: 'b' }));
    await b.read();
    await t.release('execute');
    return ok(b.one('b')) && ['success', 'failure'].includes(a.one('a')?.status);
  },
  'empty-id-of-neighbour': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.steps(a, request('get_static', { id: '' }));
    await t.steps(b, request('get_static'));
    return ok(a.one('')) && b.inbox.length === 1 && ok(b.base[0]);
  },

  // values
  'empty-id-missing': copies(''),
  'id-cut-at-255': copies('x'.repeat(256)),
  'id-cut-at-nul': copies('a\0b'),
  'id-markup-escaped': copies('<a href="x">&amp;</a>'),
  'id-digits-as-number': copies('12345'),
  'id-prototype-name': async (t) => await copies('constructor')(t) && copies('__proto__')(t),
  'id-null-text': async (t) => await copies('None')(t) && copies('null')(t),
  'empty-payload-missing': async (t) => {
    const c = await t.connect();
    await t.steps(c, execute('a', {}));
    return ok(c.one('a'));
  },
  'falsy-arguments-dropped': async (t) => {
    const c = await t.connect();
    const payload = { a: 0, b: '', c: false, d: null, e: [], f: {} };
    await t.steps(c, execute('a', payload));
    return same(c.one('a')?.payload, payload);
  },
  'big-integer-rounded': async (t) => {
    const c = await t.connect();
    await t.steps(c, '{"session_id": "a", "command": "execute", "payload": {"n": 9007199254740993}, "version": "0.1.0"}');
    return /9007199254740993(?!\d)/.test(c.raw[0]);
  },
  'id-of-65536-lost': copies('\u00e9'.repeat(65536)),

  // equivalents
  'id-after-payload': serves('{"command": "execute", "payload": {}, "version": "0.1.0", "session_id": "a"}', 'a'),
  'payload-before-command': async (t) => {
    const c = await t.connect();
    await t.steps(c, '{"payload": {"n": 1}, "session_id": "a", "command": "calibrate", "version": "0.1.0"}');
    return returns(c.one('a'), 'n', 1);
  },
  'escaped-member-name': serves('{"session\\u005fid": "a", "command": "get_static", "version": "0.1.0"}', 'a'),
  'escaped-solidus': serves('{"session_id": "a\\/b", "command": "get_static", "version": "0.1.0"}', 'a/b'),
  'space-before-colon': serves('{"session_id" : "a", "command"\t: "get_static", "version"\n: "0.1.0"}', 'a'),
  'leading-line-feed': serves('\n{"session_id": "a", "command": "get_static", "version": "0.1.0"}\n', 'a'),
  'three-frames-lost': async (t) => {
    const c = await t.connect();
    c.sendFrames('{"session_id": "a", "comm', 'and": "get_st', 'atic", "version": "0.1.0"}');
    await t.settle();
    return ok(c.one('a'));
  },
  'frames-decoded-singly': async (t) => {
    const c = await t.connect();
    const bytes = Buffer.from('{"session_id": "\u20ac", "command": "get_static", "version": "0.1.0"}');
    const cut = bytes.indexOf(0xe2) + 1;
    c.sendFrames(bytes.subarray(0, cut), bytes.subarray(cut));
    await t.settle();
    return ok(c.one('\u20ac'));
  },
  'escaped-surrogates': serves('{"session_id": "\\ud83d\\ude00", "command": "get_static", "version": "0.1.0"}', '\u{1f600}'),
  'upper-hex-escape': serves('{"session_id": "\\u00E9", "command": "get_static", "version": "0.1.0"}', '\u00e9'),
  'exponent-refused': async (t) => {
    const c = await t.connect();
    await t.steps(c, '{"session_id": "a", "command": "execute", "payload": {"n": 1E2}, "version": "0.1.0"}');
    return returns(c.one('a'), 'n', 100);
  },
  'build-metadata-refused': serves('{"session_id": "a", "command": "get_static", "version": "0.1.0+b.7"}', 'a'),

  // one-of-many
  'terminate-status': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('terminate', { id: 'a' }), request('terminate'));
    return ok(c.one('a')) && ok(c.base[0]);
  },
  'initialize-failure-version': async (t) => {
    const c = await t.connect();
    await t.control('outcome', { command: 'initialize', failure: 'not ready' });
    await t.steps(c, request('initialize', { id: 'a' }));
    return failed(c.one('a')) && SEMVER.test(c.one('a').version);
  },
  'dynamic-failure-object': async (t) => {
    const c = await t.connect();
    await t.control('outcome', { command: 'get_dynamic', failure: 'not ready' });
    await t.steps(c, request('get_dynamic', { id: 'a' }));
    return failed(c.one('a')) && typeof c.one('a').payload === 'string';
  },
  'calibrate-null-id': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('calibrate'));
    return c.inbox.length === 1 && ok(c.base[0]);
  },
  'unknown-command-no-id': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('no_such_command', { id: 'a' }));
    return failed(c.one('a'));
  },
  'bad-version-no-id': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('get_static', { id: 'a', version: '9.0.0' }));
    return c.inbox.length === 1 && c.one('a') !== null;
  },
  'static-list': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('get_static', { id: 'a', payload: {} }));
    return ok(c.one('a')) && !Array.isArray(c.one('a').payload);
  },
  'initialize-null': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('initialize', { id: 'a', payload: { n: 1 } }));
    return ok(c.one('a')) && c.one('a').payload !== null;
  },
  'empty-reason-success': async (t) => {
    const c = await t.connect();
    await t.steps(c, execute('a', { fail: '' }));
    return failed(c.one('a'));
  },
  'publish-no-version': async (t) => {
    const c = await t.connect();
    const { sent } = await t.control('publish', { command: 'notice' });
    await t.settle();
    return !sent || (c.published.length === 1 && SEMVER.test(c.published[0].version));
  },
  'static-answered-twice': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('get_static', { payload: { detail: true } }));
    return c.base.length === 1 && ok(c.base[0]);
  },

  // more history
  'session-bound-to-command': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('initialize', { id: 's' }), execute('s', { n: 1 }));
    return c.all('s').length === 2 && returns(c.all('s')[1], 'n', 1);
  },
  'session-ended-by-terminate': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.steps(a, request('terminate', { id: 's' }), request('get_static', { id: 's' }));
    await t.steps(b, request('get_static', { id: 's' }));
    return a.all('s').length === 2 && a.all('s').every(ok) && ok(b.one('s'));
  },
  'unknown-remembered': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('later', { id: 'a' }));
    await t.control('define', { command: 'later', returns: { n: 1 } });
    await t.steps(c, request('later', { id: 'b' }));
    return failed(c.one('a')) && returns(c.one('b'), 'n', 1);
  },
  'publish-payload-cached': async (t) => {
    const c = await t.connect();
    const { sent } = await t.control('publish', { command: 'notice', payload: { n: 1 } });
    await t.control('publish', { command: 'notice', payload: { n: 2 } });
    await t.settle();
    return !sent || c.published.map((m) => m.payload?.n).sort().join() === '1,2';
  },
  'initialize-resets-dynamic': async (t) => {
    const c = await t.connect();
    await t.control('dynamic', { n: 1 });
    await t.steps(c, request('initialize', { id: 'a' }), request('get_dynamic', { id: 'b' }));
    return ok(c.one('a')) && returns(c.one('b'), 'n', 1);
  },

  // more several
  'pipeline-aborted': async (t) => {
    const c = await t.connect();
    c.send(execute(undefined, { duration_ms: 100, fail: 'no' }), request('get_static'), request('calibrate'));
    await t.settle();
    return c.base.length === 3 && c.base.filter(ok).length === 2 && c.base.filter(failed).length === 1;
  },
  'publish-with-session': async (t) => {
    const c = await t.connect();
    await t.hold('execute');
    c.send(execute('a', { n: 1 }), execute('b', { n: 2 }));
    await t.outstanding(2);
    const { sent } = await t.control('publish', { command: 'notice', payload: { n: 3 } });
    await t.release('execute');
    return returns(c.one('a'), 'n', 1) && returns(c.one('b'), 'n', 2)
      && (!sent || (c.published.length === 1 && !('session_id' in c.published[0])));
  },
  'equal-arguments-single-flight': async (t) => {
    const c = await t.connect();
    await t.hold('execute');
    c.send(execute('a', { n: 1 }), execute('b', { n: 1 }));
    await t.outstanding(2);
    await t.release('execute');
    return returns(c.one('a'), 'n', 1) && returns(c.one('b'), 'n', 1);
  },
  'slots-of-four': async (t) => {
    const cs = [];
    for (let n = 0; n < 5; n++) cs.push(await t.connect());
    for (const [n, c] of cs.entries()) await t.steps(c, execute(`i${n}`, { n }));
    return cs.every((c, n) => c.inbox.length === 1 && returns(c.one(`i${n}`), 'n', n));
  },

  // more identity
  'id-prefix-of-outstanding': together(['job-1', 'job-10']),
  'payload-id-overrides': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('calibrate', { id: 'a', payload: { session_id: 'b' } }));
    return returns(c.one('a'), 'session_id', 'b');
  },
  'uuid-hyphens-ignored': together([UUID, UUID.replaceAll('-', '')]),
  'base-replies-crossed': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(execute(undefined, { n: 1 }));
    await t.outstanding(1);
    b.send(execute(undefined, { n: 2 }));
    await t.outstanding(2);
    await t.release('execute');
    return a.base.length === 1 && returns(a.base[0], 'n', 1) && b.base.length === 1 && returns(b.base[0], 'n', 2);
  },

  // more neighbours
  'departed-id-blocked': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(execute('same', { n: 1 }));
    await t.outstanding(1);
    await t.leave(a);
    await t.release('execute');
    await t.steps(b, execute('same', { n: 2 }));
    return returns(b.one('same'), 'n', 2);
  },
  'abrupt-leave-fails-others': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(execute('a', { n: 1 }));
    await t.outstanding(1);
    b.ws.terminate();
    await t.leave(b);
    await t.release('execute');
    return returns(a.one('a'), 'n', 1);
  },
  'limit-counted-hubwide': async (t) => {
    const [a, b] = [await t.connect(), await t.connect()];
    await t.hold('execute');
    a.send(...Array.from({ length: 64 }, (_, n) => execute(`i${n}`, { n })));
    await t.outstanding(64);
    b.send(request('get_static', { id: 'b' }));
    await b.read();
    await t.release('execute');
    return ok(b.one('b')) && a.inbox.length === 64 && a.inbox.every(ok);
  },
  'late-failure-to-newcomer': async (t) => {
    const a = await t.connect();
    await t.hold('execute');
    a.send(execute('a', { fail: 'no' }));
    await t.outstanding(1);
    const b = await t.connect();
    await t.release('execute');
    return failed(a.one('a')) && b.inbox.length === 0;
  },

  // more values
  'returned-status-spills': gives({ status: 'ready', n: 1 }),
  'id-bom-removed': copies('\ufeffa'),
  'id-unescaped-twice': copies('C:\\new\\table'),
  'numeric-names-as-list': gives({ m: { 0: 'a', 1: 'b' } }),
  'dates-renormalised': gives({ from: '2026-03-01T12:00:00+01:00', to: ['2026-03-01T12:00:00Z'] }),

  // more equivalents
  'ping-between-frames': async (t) => {
    const c = await t.connect();
    c.ws.send('{"session_id": "a", "command": "get_', { fin: false });
    c.ws.ping('between');
    c.ws.send('static", "version": "0.1.0"}', { fin: true });
    await t.settle();
    return c.inbox.length === 1 && ok(c.one('a'));
  },
  'empty-last-frame-lost': async (t) => {
    const c = await t.connect();
    c.sendFrames(request('get_static', { id: 'a' }), '');
    await t.settle();
    return ok(c.one('a'));
  },
  'additional-status-is-reply': serves('{"session_id": "a", "command": "get_static", "status": "new", "version": "0.1.0"}', 'a'),
  'patch-of-two-digits': serves('{"session_id": "a", "command": "get_static", "version": "0.1.10"}', 'a'),

  // more one-of-many
  'timed-calibrate-no-id': async (t) => {
    const c = await t.connect();
    await t.steps(c, request('calibrate', { id: 'a', payload: { duration_ms: 20, n: 1 } }));
    return c.inbox.length === 1 && returns(c.one('a'), 'n', 1);
  },
  'overflow-reply-no-version': async (t) => {
    const c = await t.connect();
    await t.hold('execute');
    c.send(...Array.from({ length: 64 }, (_, n) => execute(`i${n}`, { n })));
    await t.outstanding(64);
    c.send(request('get_static', { id: 'more' }));
    await c.read();
    await t.release('execute');
    return c.inbox.length === 65 && c.one('more') !== null && c.inbox.every((m) => SEMVER.test(m.version));
  },
  'binary-failure-undescribed': async (t) => {
    const c = await t.connect();
    await t.steps(c, Buffer.from(request('get_static', { id: 'a' })));
    return c.inbox.length <= 1 && c.inbox.every((m) => ok(m) || (failed(m) && typeof m.payload === 'string'));
  },
  'defined-base-empty-id': async (t) => {
    await t.control('define', { command: 'measure', returns: { n: 1 } });
    const c = await t.connect();
    await t.steps(c, request('measure'));
    return c.base.length === 1 && returns(c.base[0], 'n', 1);
  },
};

// ---------------------------------------------------------------- variants show themselves

const ask = async (t, ...texts) => {
  const c = await t.connect();
  await t.steps(c, ...texts);
  return c;
};
const rawOf = async (t, id = 'a') => (await ask(t, request('get_static', { id }))).raw[0];

const SHOWS = {
  'member-order': async (t) => /^\{\s*"version"/.test(await rawOf(t)),
  'additional-members': async (t) => /"served_by"/.test(await rawOf(t)),
  unescaped: async (t) => /\u00e9/.test(await rawOf(t, '\u00e9')),
  compact: async (t) => !/\s/.test(await rawOf(t)),
  indented: async (t) => /\n  "/.test(await rawOf(t)),
  'many-escapes': async (t) => /\\\//.test(await rawOf(t, 'a/b')),
  'number-spelling': async (t) => /[0-9](\.0|E0)/.test(await rawOf(t)),
  fragmented: async (t) => {
    const c = await t.connect();
    let frames = 0;
    const inner = c.ws._receiver.dataMessage;
    c.ws._receiver.dataMessage = function dataMessage(cb) { frames++; return inner.call(this, cb); };
    await t.steps(c, request('get_static', { id: 'a' }));
    return frames > 1;
  },
  pings: async (t) => {
    const c = await t.connect();
    await patient(new Promise((resolve) => { c.ws.once('ping', resolve); }), 'ping');
    return true;
  },
  'unsolicited-pongs': async (t) => {
    const c = await t.connect();
    let seen = false;
    c.ws.on('pong', (data) => { seen ||= data.toString() === 'hello'; });
    await t.steps(c, request('get_static', { id: 'a' }));
    return seen;
  },
  deflate: async (t) => (await t.connect()).ws.extensions.includes('permessage-deflate'),
  subprotocol: async (t) => {
    const ws = new WebSocket(`ws://127.0.0.1:${t.hub.port}`, ['one', 'two']);
    await patient(new Promise((resolve, reject) => { ws.once('open', resolve); ws.once('error', reject); }), 'connection');
    ws.close();
    await patient(new Promise((resolve) => { ws.once('close', resolve); }), 'close');
    return ws.protocol === 'one';
  },
  'payload-always': async (t) => 'payload' in (await ask(t, request('initialize', { id: 'a' }))).inbox[0],
  'version-patch': async (t) => /0\.1\.7/.test(await rawOf(t)),
  'version-long': async (t) => /beta/.test(await rawOf(t)),
  'version-of-request': async (t) => /0\.1\.42/.test((await ask(t, request('get_static', { id: 'a', version: '0.1.42' }))).raw[0]),
  'any-version': async (t) => ok((await ask(t, request('get_static', { id: 'a', version: '9.0.0' }))).one('a')),
  'silent-on-malformed': async (t) => (await ask(t, '[]')).inbox.length === 0,
  'close-on-malformed': async (t) => {
    const c = await t.connect();
    c.send('[]');
    return await patient(c.closed, 'close') === 1008;
  },
  'failure-texts': async (t) => /\n/.test((await ask(t, execute('a', { fail: 'x' }))).inbox[0].payload),
  'binary-served': async (t) => ok((await ask(t, Buffer.from(request('get_static', { id: 'a' })))).one('a')),
  'nan-served': async (t) => ok((await ask(t, '{"session_id": "a", "command": "get_static", "payload": {"n": NaN}, "version": "0.1.0"}')).one('a')),
  'odd-id-copied': async (t) => {
    const c = await ask(t, request('get_static', { id: 5 }));
    t.faults.length = 0;
    return ok(c.one(5));
  },
  'no-publish': async (t) => (await t.control('publish', { command: 'notice' })).sent === 0,
  'publish-with-payload': async (t) => {
    const c = await t.connect();
    await t.control('publish', { command: 'notice' });
    await t.settle();
    return 'payload' in c.published[0];
  },

  'empty-frames': async (t) => {
    const c = await t.connect();
    const lengths = [];
    const inner = c.ws._receiver.dataMessage;
    c.ws._receiver.dataMessage = function dataMessage(cb) { lengths.push(this._payloadLength); return inner.call(this, cb); };
    await t.steps(c, request('get_static', { id: 'a' }));
    return ok(c.one('a')) && lengths.length === 3 && lengths[0] === 0 && lengths[1] > 0 && lengths[2] === 0;
  },
  'pings-inside-messages': async (t) => {
    const c = await t.connect();
    let inside = false;
    c.ws.on('ping', () => { inside ||= c.ws._receiver._fragmented !== 0 && c.inbox.length === 0; });
    await t.steps(c, request('get_static', { id: 'a' }));
    return ok(c.one('a')) && inside;
  },
  'outer-white-space': async (t) => /^\s+\{[^]*\}\s+$/.test(await rawOf(t)),
  'newest-first': async (t) => {
    const c = await t.connect();
    await t.hold('execute');
    c.send(execute('a', { n: 1 }), execute('b', { n: 2 }), execute('c', { n: 3 }));
    await t.outstanding(3);
    await t.release('execute');
    return c.inbox.map((m) => m.session_id).join() === 'c,b,a';
  },
  'failure-json-text': async (t) => {
    const c = await ask(t, execute('a', { fail: 'x' }));
    return typeof c.one('a').payload === 'string' && typeof JSON.parse(c.one('a').payload).reason === 'string';
  },
  'payload-order': async (t) => Object.keys((await ask(t, execute('a', { x: 1, y: 2 }))).one('a').payload).join() === 'y,x',
  'all-escaped': async (t) => /^\{"\\u0073\\u0065.*\\u00E9/.test(await rawOf(t, '\u00e9')),
  'version-large-patch': async (t) => /"0\.1\.18446744073709551616"/.test(await rawOf(t)),
};

// ---------------------------------------------------------------- running

async function withHub(options, work) {
  const hub = await startHub(options);
  hub.agent = new http.Agent({ keepAlive: true, maxSockets: 2 });
  try {
    return await work(hub);
  } finally {
    hub.agent.destroy();
    await hub.stop();
  }
}

// true, false, or a text if the conversation broke down.
async function converse(hub, conversation, faults) {
  const t = new Talk(hub);
  let result;
  try {
    result = await conversation(t);
  } catch (error) {
    result = String(error.message);
  }
  try {
    await t.end();
  } catch (error) {
    result = `end: ${error.message}`;
  }
  faults.push(...t.faults);
  return result;
}

// All conversations on one hub; returns what went wrong.
async function all(options, shows) {
  return withHub(options, async (hub) => {
    const wrong = [];
    if (shows) {
      const result = await converse(hub, shows, wrong);
      if (result !== true) wrong.push(`variant does not show (${result})`);
    }
    for (const [name, conversation] of Object.entries(TESTS)) {
      const result = await converse(hub, conversation, wrong);
      if (result !== true) wrong.push(`${name} (${result})`);
    }
    return wrong;
  });
}

// The program as a process: first line, list, robustness, closing, end.
async function process_() {
  const file = fileURLToPath(new URL('./hub.mjs', import.meta.url));
  const children = [];
  const start = (...args) => {
    const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(child);
    child.text = '';
    child.ended = new Promise((resolve) => { child.once('close', (code, signal) => resolve(code ?? signal)); });
    child.line = new Promise((resolve) => {
      child.stdout.on('data', (d) => {
        child.text += d;
        if (child.text.includes('\n')) resolve(child.text.split('\n')[0]);
      });
    });
    return child;
  };
  const wrong = [];
  try {
    const list = start('--list');
    await patient(list.ended, 'list');
    const { bugs: b, variants: v } = JSON.parse(list.text);
    if (b.length !== bugs.length || v.length !== variants.length) wrong.push('--list');
    for (const [signal, variant] of [['SIGTERM', null], ['SIGINT', 'close-without-code'], [null, null]]) {
      const hub = start(...(variant ? ['--variant', variant] : []));
      const line = await patient(hub.line, 'first line');
      if (!/^ws:\/\/127\.0\.0\.1:\d+$/.test(line)) wrong.push(`first line ${line}`);
      const t = new Talk({ port: Number(line.split(':').at(-1)), agent: new http.Agent({ maxSockets: 2 }) });
      const c = await t.connect();
      const nonsense = ['', '{', '[]', '1', '"', '\ufeff{}', '{"a":1,}', '{"command": {"__proto__": 1}}', '[NaN]', '['.repeat(100000),
        '{"command": 5, "version": "0.1.0"}', '{"command": "execute", "payload": [], "version": "0.1.0"}', '{"session_id": null, "command": "execute"}'];
      await t.steps(c, ...nonsense, Buffer.from([0xff, 0]), request('get_static', { id: 'a' }));
      if (!ok(c.one('a')) || c.base.length !== nonsense.length + 1 || !c.base.every(failed) || t.faults.length) wrong.push('nonsense');
      if (signal) hub.kill(signal);
      else await t.control('shutdown');
      const code = await patient(c.closed, 'close');
      if (code !== (variant ? 1005 : 1001)) wrong.push(`closed with ${code}`);
      const status = await patient(hub.ended, 'end');
      if (status !== 0) wrong.push(`ended with ${status}`);
    }
  } catch (error) {
    wrong.push(String(error.message));
  } finally {
    for (const child of children) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await Promise.all(children.map((child) => child.ended));
  }
  return wrong;
}

// Works on the items, a few at a time.
async function pool(items, work, width = 6) {
  const rest = [...items];
  await Promise.all(Array.from({ length: width }, async () => {
    while (rest.length) await work(rest.shift());
  }));
}

async function main() {
  const names = process.argv.slice(2);
  const known = ['program', 'plain', ...bugs.map((b) => b.name), ...variants.map((v) => v.name)];
  const unknown = names.filter((n) => !known.includes(n));
  if (unknown.length) { console.log(`unknown: ${unknown.join(' ')}`); process.exit(1); }
  const wanted = (name) => !names.length || names.includes(name);
  const began = Date.now();
  let bad = 0;
  let done = 0;
  const line = (kind, name, right, text) => {
    done++;
    if (!right) bad++;
    console.log(`${right ? 'ok  ' : 'BAD '} ${kind} ${name}${text ? ': ' + text : ''}`);
  };
  const report = (kind, name, wrong) => line(kind, name, !wrong.length, wrong.slice(0, 5).join('; '));

  if (wanted('program')) report('hub', 'program', await process_());
  if (wanted('plain')) report('hub', 'plain', await all({}));
  await pool(bugs.filter((b) => wanted(b.name)), async ({ name }) => {
    const conversation = TESTS[name] ?? (async () => 'no conversation');
    const without = await withHub({}, (hub) => converse(hub, conversation, []));
    const withBug = await withHub({ bug: name }, (hub) => converse(hub, conversation, []));
    const right = without === true && withBug === false;
    line('bug', name, right, right ? '' : `without ${without}, with ${withBug}`);
  });
  await pool(variants.filter((v) => wanted(v.name)), async ({ name }) => {
    report('variant', name, await all({ variants: [name] }, SHOWS[name]));
  });
  console.log(`${done - bad} of ${done} as they should be, ${((Date.now() - began) / 1000).toFixed(0)} s`);
  process.exit(bad ? 1 : 0);
}

main();
