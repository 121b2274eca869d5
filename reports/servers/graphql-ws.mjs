// graphql-ws with ws: `graphql-ws.mjs PORT`.
import { buildSchema } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';
import { resolvers, typeDefs } from './schema.mjs';

const schema = buildSchema(typeDefs);
for (const [type, fields] of Object.entries(resolvers)) {
  for (const [name, resolver] of Object.entries(fields)) {
    const field = schema.getType(type).getFields()[name];
    if (resolver.subscribe) field.subscribe = resolver.subscribe;
    else field.resolve = resolver;
  }
}
useServer(
  { schema, connectionInitWaitTimeout: 2000, onConnect: ({ connectionParams }) => connectionParams?.token !== 'wrong' },
  new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]), path: '/graphql' }),
);
