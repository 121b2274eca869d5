// A charge point on ocpp-rpc: `ocpp-rpc-point.mjs URL NEEDS`. The package reconnects by itself.
import { RPCClient } from "ocpp-rpc";

const [url, needs] = process.argv.slice(2);
const point = new RPCClient({ endpoint: url, identity: "CP 7/a", protocols: ["ocpp1.6"], strictMode: true });
point.handle("GetConfiguration", () => ({ configurationKey: [] }));
await point.connect();

const pause = seconds => new Promise(resolve => setTimeout(resolve, seconds * 1000));
let answer;
do {
  answer = await point.call("BootNotification", { chargePointVendor: "Example", chargePointModel: "Wallbox" });
  if (answer.status !== "Accepted") await pause(answer.interval);
} while (answer.status !== "Accepted");
if (needs.includes("two-calls")) {
  const available = { connectorId: 1, errorCode: "NoError", status: "Available" };
  await Promise.allSettled([point.call("StatusNotification", available), point.call("Heartbeat", {})]);
}
for (;;) {
  await pause(answer.interval);
  await point.call("Heartbeat", {});
}
