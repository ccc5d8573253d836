// Prediction, interpolation and the simulated network, all under clocks that the tests move.

import assert from "node:assert/strict";
import { test } from "node:test";

import { slide } from "../../gameserver/games/arena/web/slide.js";
import { Interpolation, NetSim, seededRandom, Prediction, turn } from "../../gameserver/client/js/index.js";
import { decodeFull, Schema } from "../../gameserver/client/js/protocol.js";
import { FakeClock, vectors } from "./fakes.js";

const walker = () => new Prediction({ apply: (s, input, dtS) => ({ ...s, x: s.x + input.move * dtS }), dtS: 0.5, smooth: ["x"], snap: 5 });
const schema = new Schema({
  tables: [{ name: "t", fields: [{ name: "x", type: "f32" }, { name: "aim", type: "f32" }, { name: "hp", type: "u8" }] }],
});

function world(x, aim = 0, hp = 1, id = 1) {
  const body = new Uint8Array(2 + 2 + 4 + 4 + 1);
  const view = new DataView(body.buffer);
  view.setUint16(0, 1, true);
  view.setUint16(2, id, true);
  view.setFloat32(4, x, true);
  view.setFloat32(8, aim, true);
  view.setUint8(12, hp);
  return decodeFull(schema, body);
}

test("an input shows at once, and the server's word on the same inputs changes nothing", () => {
  const me = walker();
  me.reconcile({ x: 0 }, 0, 0);
  for (const seq of [1, 2, 3]) me.push(seq, { move: 2 });
  assert.equal(me.state.x, 3);
  me.reconcile({ x: 1 }, 1, 10);
  assert.equal(me.state.x, 3);
  assert.equal(me.pending, 2);
  assert.equal(me.lastCorrection, 0);
});

test("a misprediction is corrected in the state at once and in the view bit by bit", () => {
  const me = walker();
  me.reconcile({ x: 0 }, 0, 0);
  for (const seq of [1, 2]) me.push(seq, { move: 2 });
  me.reconcile({ x: 0 }, 1, 100); // a wall was in the way of the first
  assert.equal(me.state.x, 1);
  assert.equal(me.view(100).x, 2);
  assert.ok(Math.abs(me.view(160).x - 1.5) < 1e-9);
  assert.ok(Math.abs(me.view(2000).x - 1) < 1e-6);
});

test("a respawn is shown at once", () => {
  const me = walker();
  me.reconcile({ x: 0 }, 0, 0);
  me.push(1, { move: 2 });
  me.reconcile({ x: 40 }, 1, 100);
  assert.equal(me.view(100, 0).x, 40);
});

test("between inputs the view moves evenly", () => {
  const me = walker();
  assert.equal(me.view(0), null);
  me.reconcile({ x: 0 }, 0, 0);
  me.push(1, { move: 2 });
  assert.deepEqual([0, 0.25, 1].map((fraction) => me.view(0, fraction).x), [0, 0.25, 1]);
});

test("after a reset the inputs on the way are forgotten", () => {
  const me = walker();
  me.reconcile({ x: 0 }, 0, 0);
  me.push(1, { move: 2 });
  me.reset();
  me.reconcile({ x: 0 }, 0, 5000);
  assert.equal(me.state.x, 0);
});

test("the browser slides along walls exactly as the server does", () => {
  for (const { map, from, steps } of vectors("arena_moves")) {
    let [x, y] = from;
    for (const { step, at } of steps) {
      [x, y] = slide(map, 0.5, x, y, step[0], step[1]);
      assert.ok(Math.abs(x - at[0]) < 1e-9 && Math.abs(y - at[1]) < 1e-9, `${map.name}: ${x}, ${y} instead of ${at}`);
    }
  }
});

test("with even arrivals the world is shown one interval in the past, between two snapshots", () => {
  const buffer = new Interpolation({ tickRateHz: 20 });
  for (let tick = 1; tick <= 10; tick++) buffer.push(tick, world(tick), 1000 + tick * 50);
  assert.equal(buffer.jitterMs, 0);
  assert.equal(buffer.delayMs, 50);
  buffer.advance(1525);
  assert.ok(Math.abs(buffer.rows("t").get(1).x - 9.5) < 1e-6);
});

test("the buffer grows with the jitter that is measured, and shrinks again", () => {
  const buffer = new Interpolation({ tickRateHz: 20 });
  let tick = 0;
  for (; tick < 100; tick++) buffer.push(tick, world(tick), 1000 + tick * 50 + (tick % 2) * 40);
  assert.ok(Math.abs(buffer.delayMs - 90) < 1e-6);
  for (; tick < 300; tick++) buffer.push(tick, world(tick), 1000 + tick * 50);
  assert.ok(Math.abs(buffer.delayMs - 50) < 1e-6);
});

test("the shown time never runs backwards and never jerks, however snapshots arrive", () => {
  const buffer = new Interpolation({ tickRateHz: 20 });
  let shown = 0;
  let tick = 0;
  for (let now = 1000; now < 9000; now += 16) {
    while (1000 + tick * 50 + ((tick * 37) % 90) <= now) buffer.push(++tick, world(tick), now);
    const next = buffer.advance(now);
    if (now > 4500) {
      assert.ok(next - shown > 0.8 * (16 / 50) && next - shown < 1.2 * (16 / 50), `${next - shown} ticks in a frame`);
      assert.ok(next <= tick, "only what has arrived is shown");
    }
    shown = next;
  }
});

test("angles turn the short way, other fields step, and a leap is not smeared", () => {
  const buffer = new Interpolation({ tickRateHz: 20, angles: ["aim"], teleport: 3 });
  buffer.push(1, world(1, 3, 7), 1000);
  buffer.push(2, world(2, -3, 9), 1050);
  buffer.advance(1075);
  const row = buffer.rows("t").get(1);
  assert.ok(Math.abs(Math.abs(row.aim) - Math.PI) < 0.01);
  assert.equal(row.hp, 7);
  buffer.push(3, world(30), 1100);
  buffer.advance(1125);
  assert.equal(buffer.rows("t").get(1).x, 30);
  assert.ok(Math.abs(turn(7) - (7 - 2 * Math.PI)) < 1e-12);
});

test("a row that is gone is shown until its time", () => {
  const buffer = new Interpolation({ tickRateHz: 20 });
  assert.equal(buffer.rows("t").size, 0);
  assert.equal(buffer.advance(5), 0);
  buffer.push(1, world(1), 1000);
  buffer.push(2, world(2, 0, 1, 2), 1050);
  buffer.advance(1075);
  assert.deepEqual([...buffer.rows("t").keys()], [1]);
  buffer.advance(1110);
  assert.deepEqual([...buffer.rows("t").keys()], [2]);
});

test("the simulated network delays every message, in order", async () => {
  const clock = new FakeClock();
  let dice = 0;
  const network = new NetSim({ delayMs: 80, jitterMs: 40, random: () => (dice = (dice + 0.618) % 1), clock });
  const arrived = [];
  const send = network.path((message) => arrived.push([message, clock.now()]));
  for (let k = 0; k < 20; k++) {
    send(k);
    await clock.pass(5);
  }
  await clock.pass(500);
  assert.deepEqual(arrived.map(([message]) => message), [...Array(20).keys()]);
  for (const [k, at] of arrived) assert.ok(at - (1000 + k * 5) >= 80 && at - (1000 + k * 5) <= 120.001);
});

test("what the simulated network loses comes late, and so does all behind it, but nothing is missing", async () => {
  const clock = new FakeClock();
  const rolls = [0, 0.01, 0.9, 0, 0.9]; // jitter, lost, sent again; jitter, not lost
  const network = new NetSim({ lossPercent: 5, delayMs: 50, random: () => rolls.shift(), clock });
  const arrived = [];
  const send = network.path((message) => arrived.push([message, clock.now() - 1000]));
  send("a");
  send("b");
  await clock.pass(1000);
  assert.deepEqual(arrived, [["a", 250], ["b", 250]]);
});

test("a page's query asks for a simulated network, or for none", () => {
  assert.equal(NetSim.fromQuery(new URLSearchParams("queue=duel&loss=x")), null);
  assert.ok(NetSim.fromQuery(new URLSearchParams("loss=5&delay=80&jitter=20")) instanceof NetSim);
  assert.ok(NetSim.fromQuery(new URLSearchParams("dup=1")) instanceof NetSim);
});

test("a seed makes the same network again", async () => {
  const run = async (seed) => {
    const clock = new FakeClock();
    const network = new NetSim({ lossPercent: 20, delayMs: 30, jitterMs: 30, duplicatePercent: 10, random: seededRandom(seed), clock });
    const arrived = [];
    const send = network.path((message) => arrived.push([message, clock.now()]));
    for (let k = 0; k < 50; k++) send(k);
    await clock.pass(20_000);
    assert.deepEqual(arrived.map(([message]) => message), [...Array(50).keys()]);
    return arrived;
  };
  assert.deepEqual(await run(7), await run(7));
  assert.notDeepEqual(await run(7), await run(8));
  const dice = seededRandom(1);
  const mean = Array.from({ length: 2000 }, dice).reduce((a, b) => a + b) / 2000;
  assert.ok(Math.abs(mean - 0.5) < 0.03);
});

test("a clock that is set back or forward shows the newest world again at once", () => {
  for (const jump of [-3_600_000, 3_600_000]) {
    const buffer = new Interpolation({ tickRateHz: 20 });
    const world = { rows: () => new Map(), schema: {} };
    let at = 0;
    for (let tick = 1; tick <= 60; tick++) {
      at = tick * 50 + (tick > 30 ? jump : 0);
      buffer.push(tick, world, at);
      buffer.advance(at);
      if (tick === 33) assert.ok(Math.abs(buffer._shownTick - tick) < 4, `${buffer._shownTick} at ${tick}`);
    }
    assert.ok(buffer.delayMs <= 100);
  }
});
