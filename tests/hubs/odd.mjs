// How a hub behaves on the wire that does what RFC 6455, RFC 8259 and RFC 9110 allow and hardly anybody else does, and a
// WebSocket server that is small enough to do it. What each habit is and why it is legal stands in the hub that uses it.
import { createServer } from 'node:net';
import { createHash, randomUUID } from 'node:crypto';

// ---------------------------------------------------------------- chance

let state = 0;
let slowest = 0;
/** Whether there are any habits at all. */
export let odd = true;
export function setUp({ seed, plain, slow }) {
  state = seed >>> 0;
  odd = !plain;
  slowest = slow;
}

function random() { // mulberry32: a seed makes a run's habits repeatable
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
export const below = (n) => Math.floor(random() * n);
export const chance = (p) => odd && random() < p;
export const pick = (...values) => values[odd ? below(values.length) : 0];
function shuffled(list) {
  const out = [...list];
  for (let i = out.length - 1; i > 0; i--) {
    const j = below(i + 1);
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}

// ---------------------------------------------------------------- JSON, spelled oddly

const space = () => pick('', '', '', ' ', '\n\t', '\r\n  ');

function spellString(text) {
  const plain = JSON.stringify(text);
  if (text.length > 400 || !chance(0.3)) return plain;
  return `"${[...plain.slice(1, -1).matchAll(/\\u....|\\.|[^]/gu)].map(([c]) => {
    if (c[0] === '\\' || !chance(0.3)) return c;
    if (c === '/') return '\\/';
    return [...Array(c.length).keys()].map((i) => `\\u${c.charCodeAt(i).toString(16).padStart(4, '0')}`).join('');
  }).join('')}"`;
}

function spellNumber(n) {
  const plain = JSON.stringify(n);
  if (!Number.isSafeInteger(n) || n < 0 || !chance(0.4)) return plain;
  const digits = String(n);
  const exponent = digits.length - 1;
  const mantissa = exponent ? `${digits[0]}.${digits.slice(1)}` : digits;
  return pick(`${n}.0`, `${n}e0`, `${n}.00E+0`, `${mantissa}e${exponent}`, `${mantissa}E+0${exponent}`);
}

function spell(value) {
  if (typeof value === 'string') return spellString(value);
  if (typeof value === 'number') return spellNumber(value);
  if (Array.isArray(value)) return `[${value.map((v) => space() + spell(v) + space()).join(',')}${value.length ? '' : space()}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const members = Object.entries(value).filter(([, v]) => v !== undefined);
  return `{${shuffled(members).map(([k, v]) => `${space()}${spellString(k)}${space()}:${space()}${spell(v)}${space()}`).join(',')}}`;
}

function write(message) {
  if (!odd) return JSON.stringify(message);
  const extra = { 'x-träger': { type: 'error', shards: [1, null, { type: 'job_completed', job_id: 'none' }], '': false } };
  if (chance(0.3)) extra.source = pick('hub/ost', '枢纽');
  if (chance(0.3)) extra.id = newId('m');
  if (chance(0.05)) extra.padding = 'ü'.repeat(pick(60, 100, 33000));
  return space() + spell({ ...extra, ...message }) + space();
}

let counter = 0;
export function newId(kind) {
  counter += 1;
  if (!odd) return `${kind}-${randomUUID()}`;
  return pick(`${kind.toUpperCase()} ${counter}/ö`, `${counter}`, `{${randomUUID()}}`, `${kind}:#${counter}?&=%20"\\`);
}
/** A text that the document leaves free. */
export const text = (english) => pick(english, english, 'Das ist nur ein freier Text – “§”', `\u{1F680} ${english}`);
/** What has no value: left out, or null. */
export const nothing = () => pick(undefined, null);

// ---------------------------------------------------------------- WebSocket (RFC 6455, server side)

const OP = { more: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };
const MAX_MESSAGE = 10 * 1024 * 1024;
let peer = null; // what the hub does when somebody comes, speaks and leaves

function frame(opcode, payload, final = true) {
  const n = payload.length;
  const head = Buffer.alloc(n < 126 ? 2 : n < 65536 ? 4 : 10);
  head[0] = (final ? 0x80 : 0) | opcode;
  head[1] = n < 126 ? n : n < 65536 ? 126 : 127;
  if (n >= 65536) head.writeBigUInt64BE(BigInt(n), 2);
  else if (n >= 126) head.writeUInt16BE(n, 2);
  return Buffer.concat([head, payload]);
}

/** The frames of one text message, with whatever may stand between them. */
function textFrames(payload) {
  if (!chance(0.4)) return [frame(OP.text, payload)];
  const cuts = payload.length < 500 && chance(0.05)
    ? Array.from(payload.keys())
    : Array.from({ length: 1 + below(3) }, () => below(payload.length + 1)).sort((a, b) => a - b);
  const pieces = [...cuts, payload.length].map((end, i) => payload.subarray(i ? cuts[i - 1] : 0, end));
  return pieces.flatMap((piece, i) => {
    const part = frame(i ? OP.more : OP.text, piece, i === pieces.length - 1);
    return i && chance(0.5) ? [wsPing(), part] : [part];
  });
}
const wsPing = () => frame(OP.ping, Buffer.from(pick('', 'still there?', '\u0000\u0001', 'x'.repeat(125))));

/** Puts bytes behind those that wait already; the order on one connection is that of the calls, whatever the delays. */
function put(conn, bytes, delay = 0) {
  if (bytes === null) conn.ended = true;
  const last = conn.outbox.at(-1);
  conn.outbox.push({ bytes, due: Math.max(Date.now() + delay, last ? last.due : 0) });
  pump(conn);
}
function pump(conn) {
  while (conn.outbox.length && conn.outbox[0].due <= Date.now()) {
    const { bytes } = conn.outbox.shift();
    if (bytes === null) conn.socket.end();
    else if (!conn.socket.destroyed && conn.socket.writable) conn.socket.write(bytes);
  }
  clearTimeout(conn.timer);
  if (conn.outbox.length) conn.timer = setTimeout(() => pump(conn), conn.outbox[0].due - Date.now());
}
/** Puts a frame, cut into TCP segments at random. */
function putFrame(conn, bytes) {
  if (!chance(0.2)) return put(conn, bytes);
  const cut = 1 + below(Math.min(bytes.length - 1, 12));
  put(conn, bytes.subarray(0, cut));
  return put(conn, bytes.subarray(cut), 1 + below(4));
}

/** Sends a message, after a while. */
export function transmit(conn, message) {
  if (!conn.open) return;
  const delay = odd ? Math.floor(random() ** 2 * slowest) : 0;
  put(conn, Buffer.alloc(0), delay);
  if (chance(0.1)) put(conn, pick(wsPing(), frame(OP.pong, Buffer.from('unasked'))));
  for (const bytes of textFrames(Buffer.from(write(message)))) putFrame(conn, bytes);
}

export function close(conn, code, reason = '') {
  if (!conn.open) return;
  conn.open = false;
  const body = Buffer.alloc(2 + Buffer.byteLength(reason));
  body.writeUInt16BE(code);
  body.write(reason, 2);
  put(conn, frame(OP.close, odd && code < 1002 ? Buffer.alloc(0) : body));
  if (code >= 1002) put(conn, null); // the peer is not understood any more: its own close frame is not waited for
  setTimeout(() => conn.socket.destroy(), 2000).unref();
  peer.left(conn);
}

function upgrade(conn) {
  const end = conn.inbox.indexOf('\r\n\r\n');
  if (end < 0) return conn.inbox.length > 16384 ? conn.socket.destroy() : undefined;
  const [request, ...lines] = conn.inbox.subarray(0, end).toString('latin1').split('\r\n');
  conn.inbox = conn.inbox.subarray(end + 4);
  const headers = new Map(lines.map((l) => [l.slice(0, l.indexOf(':')).trim().toLowerCase(), l.slice(l.indexOf(':') + 1).trim()]));
  const has = (name, token) => (headers.get(name) ?? '').toLowerCase().split(',').some((t) => t.trim() === token);
  const key = headers.get('sec-websocket-key') ?? '';
  if (!/^GET \S+ HTTP\/1\.1$/.test(request) || !headers.has('host') || !has('upgrade', 'websocket') || !has('connection', 'upgrade') || Buffer.from(key, 'base64').length !== 16) {
    return conn.socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
  }
  if (headers.get('sec-websocket-version') !== '13') {
    return conn.socket.end('HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
  }
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  const answer = odd
    ? ['HTTP/1.1 101 Bitte sehr', 'x-nothing:', `sEC-wEBSOCKET-aCCEPT:   ${accept}  `, 'CONNECTION:keep-alive, UPGRADE', 'uPGRADE: WebSocket', 'Server: odd.mjs', 'Date: Thu, 01 Jan 1970 00:00:00 GMT']
    : ['HTTP/1.1 101 Switching Protocols', 'Upgrade: websocket', 'Connection: Upgrade', `Sec-WebSocket-Accept: ${accept}`];
  const hints = chance(0.3) ? 'HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n' : '';
  const head = Buffer.from(`${hints}${answer.join('\r\n')}\r\n\r\n`);
  conn.open = conn.upgraded = true;
  if (odd) put(conn, Buffer.concat([head, wsPing(), frame(OP.pong, Buffer.alloc(0))]));
  else put(conn, head);
  peer.came(conn);
  return takeFrames(conn);
}

/** What answers a close frame: its code, unless that is none that may be sent (RFC 6455, 5.5.1 and 7.4). */
function echoOf(payload) {
  if (payload.length === 0) return payload;
  const code = payload.length > 1 ? payload.readUInt16BE(0) : 0;
  const sendable = (code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code)) || (code >= 3000 && code <= 4999);
  return sendable ? payload.subarray(0, 2) : Buffer.from([0x03, 0xea]); // 1002
}

function takeFrames(conn) {
  while (!conn.ended && conn.inbox.length >= 2) {
    const [a, b] = conn.inbox;
    const opcode = a & 15;
    const final = a >= 128;
    let length = b & 127;
    let at = 2;
    if (length === 126) {
      if (conn.inbox.length < 4) return;
      length = conn.inbox.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (conn.inbox.length < 10) return;
      length = Number(conn.inbox.readBigUInt64BE(2));
      at = 10;
    }
    const control = opcode >= 8;
    if (a & 0x70 || b < 128 || ![0, 1, 2, 8, 9, 10].includes(opcode) || (control && (!final || length > 125))) return close(conn, 1002, 'bad frame');
    if (!control && (opcode === OP.more) !== (conn.message !== null)) return close(conn, 1002, 'bad fragment');
    if (!control && length + (conn.message?.size ?? 0) > MAX_MESSAGE) return close(conn, 1009, 'more than 10 MB');
    if (conn.inbox.length < at + 4 + length) return;
    const mask = conn.inbox.subarray(at, at + 4);
    const payload = Buffer.from(conn.inbox.subarray(at + 4, at + 4 + length));
    for (let i = 0; i < length; i++) payload[i] ^= mask[i & 3];
    conn.inbox = conn.inbox.subarray(at + 4 + length);
    if (!conn.open && opcode !== OP.close) continue;
    if (opcode === OP.close) {
      const body = conn.open && (chance(0.5) ? Buffer.alloc(0) : echoOf(payload));
      if (body) put(conn, frame(OP.close, body));
      put(conn, null);
      conn.open = false;
      return peer.left(conn);
    }
    if (opcode === OP.ping) put(conn, frame(OP.pong, payload));
    if (control) continue;
    conn.message ??= { opcode, parts: [], size: 0 };
    conn.message.parts.push(payload);
    conn.message.size += length;
    if (!final) continue;
    const { opcode: kind, parts } = conn.message;
    conn.message = null;
    if (kind === OP.binary) return close(conn, 1003, 'text messages only');
    const bytes = Buffer.concat(parts);
    let content;
    try {
      content = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return close(conn, 1007, 'not UTF-8');
    }
    peer.said(conn, content);
  }
  return undefined;
}

/** A server, not yet listening: `came`, `said` and `left` are told of each connection, `left` once or twice. */
export function serve(hub) {
  peer = hub;
  return createServer((socket) => {
    socket.setNoDelay(true);
    const conn = {
      id: newId('conn'), socket, inbox: Buffer.alloc(0), outbox: [], message: null, open: false, ended: false, upgraded: false,
    };
    socket.on('data', (data) => {
      conn.inbox = conn.inbox.length ? Buffer.concat([conn.inbox, data]) : data;
      if (conn.upgraded) takeFrames(conn);
      else upgrade(conn);
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      conn.open = false;
      if (conn.upgraded) hub.left(conn);
    });
  });
}
