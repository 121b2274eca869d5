// mercurius on fastify: `mercurius.mjs PORT`.
import fastify from 'fastify';
import mercurius from 'mercurius';
import { resolvers, typeDefs } from './schema.mjs';

const app = fastify();
app.register(mercurius, {
  schema: typeDefs,
  resolvers,
  subscription: { fullWsTransport: true, onConnect: ({ payload }) => payload?.token !== 'wrong' },
});
await app.listen({ host: '127.0.0.1', port: Number(process.argv[2]) });
