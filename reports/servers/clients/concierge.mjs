// A client of the concierge on the package ws: `concierge.mjs URL NEEDS`.
import WebSocket from "ws";

const [url, needs] = process.argv.slice(2);
const group = "simulation2_data";

function session(name) {
  const socket = new WebSocket(url, "ert-concierge");
  const send = payload => socket.send(JSON.stringify(payload));
  const handlers = {
    HELLO() {
      if (needs === "message") send({ type: "MESSAGE", target: { type: "ALL" }, data: [1, null, "two"] });
      if (needs === "group") send({ type: "GROUP_CREATE", name: group });
    },
    GROUP_CREATED({ name }) { if (name === group) send({ type: "SELF_SUBSCRIBE", name }); },
    SUBSCRIBED({ name }) { if (name === group) send({ type: "GROUP_DELETE", name }); },
  };
  socket.on("open", () => send({ type: "IDENTIFY", name, version: "0.1.0" }));
  socket.on("message", data => {
    const payload = JSON.parse(data);
    handlers[payload.type === "STATUS" ? payload.code : payload.type]?.(payload);
  });
  socket.on("close", code => {
    if (code === 4005) session(`${name}-${Math.floor(Math.random() * 1000)}`);
  });
}

session("brendan");
