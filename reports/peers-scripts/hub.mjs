// The hub of reports/peers: WebSockets by the package ws. /echo sends every message back at once. /known sends it back after a
// known delay, 100 ms and an exponential share with a mean of 100 ms, and keeps what each message took. /stall is /echo that does
// nothing for half a second, four seconds after its first message. GET /count and /took say what happened.
import http from "node:http";
import { WebSocketServer } from "ws";

const GOLDEN = 0.618033988749895;
const STALL_AT = 4000, STALL = 500;
let answered = 0, asked = 0, stalled = false, stall = 0;
const took = [];

const server = http.createServer((request, response) => {
  response.end(JSON.stringify(request.url === "/took" ? { took, stall } : { answered, clients: sockets.clients.size }));
});
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (socket, request) => {
  request.socket.setNoDelay(true);
  socket.on("error", () => socket.terminate());
  const answer = (data) => {
    socket.send(data, { binary: false });
    answered += 1;
  };
  if (request.url === "/known") {
    socket.on("message", (data) => {
      const begun = performance.now();
      asked += 1;
      setTimeout(() => {
        took.push(performance.now() - begun);
        answer(data);
      }, 100 - Math.log(1 - ((asked * GOLDEN) % 1)) * 100);
    });
  } else if (request.url === "/stall") {
    socket.on("message", (data) => {
      if (!stalled) {
        stalled = true;
        setTimeout(() => {
          const begun = performance.now();
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, STALL);
          stall = performance.now() - begun;
        }, STALL_AT);
      }
      answer(data);
    });
  } else {
    socket.on("message", answer);
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
