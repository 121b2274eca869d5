// Artillery's engine compares single values only, and has no step that depends on data.
const assert = require("node:assert");
const exchanges = require(process.env.EXCHANGES);
let place = 0;
const inAnyOrder = (value) => (Array.isArray(value) ? value.map((item) => JSON.stringify(item, Object.keys(item).sort())).sort() : value);

exports.begin = async (context) => {
  for (; exchanges[place][1] === null; place += 1) context.ws.send(exchanges[place][0]);
  context.vars.sent = exchanges[place][0];
};
exports.compare = async (context) => {
  assert.deepStrictEqual(inAnyOrder(context.vars.answer), inAnyOrder(exchanges[place][1]));
  place += 1;
};
exports.more = (context, next) => next(place < exchanges.length);
