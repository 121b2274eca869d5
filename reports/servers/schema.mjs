// The GraphQL schema that the servers of this folder have in common, for graphql-js.
export const typeDefs = `
  type Query { echo(text: String!): String!, slow(ms: Int!): Boolean!, fails: String }
  type Mutation { remember(text: String!): String! }
  type Subscription { count(to: Int!): Int!, ticks(every: Int!): Int! }
`;

const pause = ms => new Promise(done => setTimeout(done, ms));

async function* count({ to }) {
  for (let number = 1; number <= to; number++) yield { count: number };
}

async function* ticks({ every }) {
  for (let number = 1; ; number++) {
    await pause(every);
    yield { ticks: number };
  }
}

export const resolvers = {
  Query: {
    echo: (_, { text }) => text,
    slow: async (_, { ms }) => (await pause(ms), true),
    fails: () => { throw new Error('the resolver failed'); },
  },
  Mutation: { remember: (_, { text }) => text },
  Subscription: {
    count: { subscribe: (_, arguments_) => count(arguments_) },
    ticks: { subscribe: (_, arguments_) => ticks(arguments_) },
  },
};
