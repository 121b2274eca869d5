// A client of the Airavata Scheduler on the package ws, which reconnects as in the document: `airavata.mjs URL NEEDS`.
import WebSocket from "ws";

const [url, needs] = process.argv.slice(2);
const token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1c2VyLTQ1NiJ9.c2lnbmF0dXJl";
const resource = { resourceType: "project", resourceId: "proj-789" };
let attempts = 0, count = 0;

function connect() {
  const socket = new WebSocket(`${url}/ws/projects/proj-789?token=${token}`);
  const send = (type, members) =>
    socket.send(JSON.stringify({ type, id: `${type}-${++count}`, timestamp: new Date().toISOString(), ...members }));
  socket.on("open", () => {
    attempts = 0;
    if (needs === "ping") send("ping");
    if (needs === "subscribe" || needs === "unsubscribe") send("system_status", { data: { action: "subscribe", ...resource } });
  });
  socket.on("message", text => {
    const message = JSON.parse(text);
    if (message.type === "ping") send("pong");
    if (needs === "unsubscribe" && message.data?.action === "subscribed") {
      send("system_status", { data: { action: "unsubscribe", ...resource } });
    }
  });
  socket.on("error", error => console.error(error.message));
  socket.on("close", () => {
    if (attempts++ < 5) setTimeout(connect, 1000 * 2 ** (attempts - 1));
  });
}

connect();
