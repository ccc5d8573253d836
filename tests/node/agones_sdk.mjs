// The official Agones SDK for Node, run as a fleet's command: says what it saw as JSON lines, then shuts down.
import AgonesSDK from "@google-cloud/agones-sdk";

const say = (what, value) => console.log(JSON.stringify({ what, value }));
const fails = async (promise) => promise.then(() => false, () => true);
const sdk = new AgonesSDK();
await sdk.connect();

const states = [];
sdk.watchGameServer((server) => {
  if (states.at(-1) !== server.status.state) states.push(server.status.state);
});
sdk.health((error) => say("health error", String(error)));
const beat = setInterval(() => sdk.health(), 200);
const settled = async (state) => {
  for (let i = 0; i < 200 && states.at(-1) !== state; i++) await new Promise((next) => setTimeout(next, 20));
};

await sdk.ready();
await settled("Ready");
await sdk.setLabel("mode", "ctf");
await sdk.setAnnotation("map", "forest");
say("bad label refused", await fails(sdk.setLabel("not a key", "x")));
const server = await sdk.getGameServer();
say("name", server.objectMeta.name === process.env.POD_NAME);
say("port", server.status.portsList[0].port === Number(process.env.PORT));
say("labels", Object.fromEntries(server.objectMeta.labelsMap));
say("annotations", Object.fromEntries(server.objectMeta.annotationsMap));
say("health spec", server.spec.health);

await sdk.beta.incrementCounter("rooms", 3);
await sdk.beta.decrementCounter("rooms", 1);
say("counter", [await sdk.beta.getCounterCount("rooms"), await sdk.beta.getCounterCapacity("rooms")]);
say("counter above capacity refused", await fails(sdk.beta.setCounterCount("rooms", 99)));
await sdk.beta.setCounterCapacity("rooms", 9);
await sdk.beta.setCounterCount("rooms", 8);
say("counter set", [await sdk.beta.getCounterCount("rooms"), await sdk.beta.getCounterCapacity("rooms")]);
say("unknown counter refused", await fails(sdk.beta.getCounterCount("none")));
await sdk.beta.appendListValue("players", "ann");
await sdk.beta.appendListValue("players", "bob");
say("duplicate refused", await fails(sdk.beta.appendListValue("players", "bob")));
say("full list refused", await fails(sdk.beta.appendListValue("players", "eve")));
await sdk.beta.setListCapacity("players", 5);
await sdk.beta.deleteListValue("players", "ann");
say("list", [await sdk.beta.getListValues("players"), await sdk.beta.getListCapacity("players")]);
say("contains", [await sdk.beta.listContains("players", "bob"), await sdk.beta.getListLength("players")]);

await sdk.allocate();
await settled("Allocated");
await sdk.ready();
await settled("Ready");
await sdk.reserve(1);
await settled("Reserved");
await settled("Ready");
say("states", states);
process.on("SIGTERM", () => {
  say("asked to end", true);
  process.exit(0);
});
await sdk.shutdown();
