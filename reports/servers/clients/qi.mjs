// The side of system 2200 that sends requests, on the package ws: `qi.mjs URL NEEDS`.
import { randomUUID } from "node:crypto";
import WebSocket from "ws";

const [url, needs] = process.argv.slice(2);
const socket = new WebSocket(url);
const waiting = new Map();

function request(command, payload, session) {
  const message = { ...(session && { session_id: session }), command, ...(payload && { payload }), version: "0.1.0" };
  socket.send(JSON.stringify(message));
  return new Promise(resolve => waiting.set(session, resolve));
}

socket.on("message", data => {
  const reply = JSON.parse(data);
  waiting.get(reply.session_id)?.(reply);
});
socket.on("open", async () => {
  const execute = () => request("execute", { circuit: "version 1.0\nqubits 2" }, randomUUID());
  if (needs === "request") await request("get_backends");
  if (needs === "session") await execute();
  if (needs === "two-sessions") await Promise.all([execute(), execute()]);
  socket.close(1000);
});
