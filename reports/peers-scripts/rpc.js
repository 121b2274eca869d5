// k6: one client that plays the examples of the JSON-RPC specification.
import { WebSocket } from "k6/experimental/websockets";
import { check } from "k6";

const exchanges = JSON.parse(open(__ENV.EXCHANGES));
export const options = { thresholds: { checks: ["rate==1"] } };

// Members in order of their names, and the responses of a batch in any order.
const canonical = (value) => {
  if (Array.isArray(value)) return value.map(canonical);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((name) => [name, canonical(value[name])]));
};
const text = (value) => (Array.isArray(value) ? JSON.stringify(value.map((item) => JSON.stringify(canonical(item))).sort()) : JSON.stringify(canonical(value)));

export default function () {
  const socket = new WebSocket(__ENV.URL);
  let place = 0, timer;
  const end = (good) => {
    clearTimeout(timer);
    check(good, { "all answers are as expected": (value) => value });
    socket.close();
  };
  const next = () => {
    for (; place < exchanges.length; place += 1) {
      socket.send(exchanges[place][0]);
      if (exchanges[place][1] !== null) {
        timer = setTimeout(() => end(false), 2000);
        return;
      }
    }
    end(true);
  };
  socket.onopen = next;
  socket.onmessage = (event) => {
    clearTimeout(timer);
    let answer;
    try {
      answer = JSON.parse(event.data);
    } catch {
      return end(false);
    }
    if (place >= exchanges.length || text(answer) !== text(exchanges[place][1])) return end(false);
    place += 1;
    next();
  };
  socket.onerror = () => end(false);
}
