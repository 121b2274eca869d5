// json-rpc-2.0 with ws: `json-rpc-2.0.mjs PORT`.
import { JSONRPCErrorCode, JSONRPCErrorException, JSONRPCServer } from 'json-rpc-2.0';
import { WebSocketServer } from 'ws';

const notes = new Map();
const rpc = new JSONRPCServer({ errorListener: () => {} });
const invalid = () => { throw new JSONRPCErrorException('Invalid params', JSONRPCErrorCode.InvalidParams); };
rpc.addMethod('subtract', params => {
  const [number, minus] = Array.isArray(params) ? params : [params?.number, params?.minus];
  return typeof number === 'number' && typeof minus === 'number' ? number - minus : invalid();
});
rpc.addMethod('echo', ([value]) => value);
rpc.addMethod('ping', () => 'pong');
rpc.addMethod('note', ([text]) => { notes.set(text, (notes.get(text) ?? 0) + 1); return null; });
rpc.addMethod('noted', ([text]) => notes.get(text) ?? 0);
rpc.addMethod('fail', () => { throw new JSONRPCErrorException('The method failed', 4001); });
rpc.addMethod('slow', () => new Promise(done => setTimeout(done, 500, true)));

new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]) }).on('connection', socket => {
  socket.on('error', () => {});
  socket.on('message', async data => {
    const response = await rpc.receiveJSON(String(data));
    if (response) socket.send(JSON.stringify(response));
  });
});
