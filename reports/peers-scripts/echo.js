// k6: clients that send a message every PAUSE milliseconds, or, if it is 0, whenever the last one has come back.
import { WebSocket } from "k6/experimental/websockets";
import { Counter, Trend } from "k6/metrics";
import { sleep } from "k6";

const CLIENTS = Number(__ENV.CLIENTS), PAUSE = Number(__ENV.PAUSE), SECONDS = Number(__ENV.SECONDS);
const took = new Trend("took", true), wrong = new Counter("wrong");

export const options = {
  scenarios: { echo: { executor: "per-vu-iterations", vus: CLIENTS, iterations: 1, maxDuration: `${SECONDS + 20}s` } },
  summaryTrendStats: ["avg", "med", "p(90)", "p(99)", "max", "count"],
};

const message = (id) => `{"type":"echo","id":"${id}","priority":50,"payload":{"service":"comfyui","model":"sd15","prompt":"a lighthouse on a cliff in the evening, oil on canvas","steps":20,"seed":123456789,"scale":7.5}}`;

export default function () {
  const socket = new WebSocket(__ENV.URL);
  const begun = new Map();
  let number = 0;
  const send = () => {
    const id = `e${__VU}-${number++}`;
    begun.set(id, Date.now());
    socket.send(message(id));
  };
  socket.onmessage = (event) => {
    const { id } = JSON.parse(event.data);
    if (begun.has(id)) took.add(Date.now() - begun.get(id));
    else wrong.add(1);
    begun.delete(id);
    if (PAUSE === 0) send();
  };
  socket.onopen = () => {
    if (SECONDS > 600) return;
    // Otherwise all clients would send at the same time.
    setTimeout(() => {
      send();
      const timer = PAUSE > 0 && setInterval(send, PAUSE);
      setTimeout(() => {
        if (timer) clearInterval(timer);
        setTimeout(() => socket.close(), 2000);
      }, SECONDS * 1000);
    }, (PAUSE * (__VU - 1)) / CLIENTS);
  };
}
