// What Artillery's engine for WebSockets leaves to functions: the time of an answer, and pauses shorter than a second that count
// from one message to the next.
const PAUSE = Number(process.env.PAUSE), CLIENTS = Number(process.env.CLIENTS), SECONDS = Number(process.env.SECONDS);
let number = 0, started = 0, end = 0;
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

exports.begin = async (context) => {
  end ||= Date.now() + SECONDS * 1000;
  // Otherwise all clients would send at the same time.
  await wait((PAUSE * started++) / CLIENTS);
  context.vars.due = performance.now();
};
exports.before = async (context) => {
  context.vars.id = `e${number++}`;
  context.vars.begun = performance.now();
};
exports.after = async (context, events) => {
  const now = performance.now();
  events.emit("histogram", "took", now - context.vars.begun);
  context.vars.due = Math.max(context.vars.due + PAUSE, now - PAUSE);
  if (context.vars.due > now) await wait(context.vars.due - now);
};
exports.more = (context, next) => next(Date.now() < end);
