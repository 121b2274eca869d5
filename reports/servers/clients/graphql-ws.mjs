// A client of graphql-ws (npm) that does what a scenario needs: node graphql-ws.mjs URL NEEDS
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, needs = ""] = process.argv.slice(2);
const client = createClient({ url, webSocketImpl: WebSocket, lazy: false, retryAttempts: 0, onNonLazyError: console.error });
const sink = { next() {}, error: console.error, complete() { if (needs === "leave") client.dispose(); } };
const stop = client.subscribe({ query: "subscription { ticks }" }, {
  ...sink,
  next() { if (needs === "stop") stop(); },
});
if (needs === "several") client.subscribe({ query: "{ __typename }" }, sink);
setInterval(() => {}, 1000);               // stays until the scenario ends
