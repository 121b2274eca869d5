// A central system on ocpp-rpc: `ocpp-rpc.mjs PORT`.
import { createRPCError, RPCServer } from 'ocpp-rpc';

const tags = { 'tag-accepted': 'Accepted', 'tag-blocked': 'Blocked' };
const tagInfo = tag => ({ status: tags[tag.toLowerCase()] ?? 'Invalid' });
const now = () => new Date().toISOString();
let transactions = 0;

const server = new RPCServer({ protocols: ['ocpp1.6'], strictMode: true });
server.auth(accept => accept({}));
server.on('client', client => {
  client.handle('BootNotification', () => ({ status: 'Accepted', interval: 300, currentTime: now() }));
  client.handle('Heartbeat', () => ({ currentTime: now() }));
  client.handle('Authorize', ({ params }) => ({ idTagInfo: tagInfo(params.idTag) }));
  client.handle('StartTransaction', ({ params }) => ({ transactionId: ++transactions, idTagInfo: tagInfo(params.idTag) }));
  client.handle('StopTransaction', ({ params }) => (params.idTag ? { idTagInfo: tagInfo(params.idTag) } : {}));
  client.handle('StatusNotification', () => ({}));
  client.handle('MeterValues', () => ({}));
  client.handle('DataTransfer', () => ({ status: 'UnknownVendorId' }));
  client.handle(() => { throw createRPCError('NotImplemented'); });
});
await server.listen(Number(process.argv[2]), '127.0.0.1');
