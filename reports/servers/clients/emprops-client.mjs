// A job client and monitor of the EmProps Job Queue on the package ws: `emprops-client.mjs URL NEEDS`.
import { createHash } from "node:crypto";
import WebSocket from "ws";

const [url, needs] = process.argv.slice(2);
const socket = new WebSocket(url);
const send = (type, members) => socket.send(JSON.stringify({ type, timestamp: Date.now(), ...members }));
const order = { job_type: "text_to_image", priority: 50, payload: { prompt: "a castle" }, customer_id: "customer-9" };

function upload() {
  const data = Buffer.from(JSON.stringify({ ...order, payload: { image: "x".repeat(2_500_000) } }));
  const size = 500_000, total = Math.ceil(data.length / size);
  const common = { chunk_id: "chunk-1", total_chunks: total, original_type: "submit_job",
    data_hash: createHash("sha256").update(data).digest("hex") };
  for (let i = 0; i < total; i++) {
    send("chunked_message", { ...common, chunk_index: i, data: data.subarray(i * size, (i + 1) * size).toString("base64") });
  }
}

socket.on("message", text => {
  const message = JSON.parse(text);
  switch (message.type) {
    case "connection_established":
      if (needs === "monitor") send("register_client", { client_type: "monitor", client_id: "dashboard", permissions: ["view_all_jobs"] });
      else send("register_client", { client_type: "job_client", client_id: "my-app", version: "1.0.0" });
      break;
    case "client_registered":
      if (needs === "monitor") send("subscribe_stats", { enabled: true, interval_seconds: 5 });
      else if (needs === "upload") upload();
      else send("submit_job", order);
      break;
    case "job_accepted":
      if (needs === "cancel") send("cancel_job", { job_id: message.job_id, reason: "User requested cancellation" });
      if (needs === "status") send("request_job_status", { job_id: message.job_id });
      break;
    case "ping":
      send("pong");
  }
});
