// rpc-websockets: `rpc-websockets.mjs PORT`.
import { Server } from 'rpc-websockets';

const notes = new Map();
const server = new Server({ host: '127.0.0.1', port: Number(process.argv[2]) });
// An Error would become a failure of the server, -32000.
const fail = (code, message) => { throw { code, message }; };
server.register('subtract', params => {
  const [number, minus] = Array.isArray(params) ? params : [params.number, params.minus];
  if (typeof number !== 'number' || typeof minus !== 'number') fail(-32602, 'Invalid params');
  return number - minus;
});
server.register('echo', ([value]) => value);
server.register('ping', () => 'pong');
server.register('note', ([text]) => { notes.set(text, (notes.get(text) ?? 0) + 1); return null; });
server.register('noted', ([text]) => notes.get(text) ?? 0);
server.register('fail', () => fail(4001, 'The method failed'));
server.register('slow', () => new Promise(done => setTimeout(done, 500, true)));
