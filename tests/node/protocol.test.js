import assert from "node:assert/strict";
import { test } from "node:test";

import * as wire from "../../gameserver/client/js/protocol.js";
import { bytes, vectors } from "./fakes.js";

const frozen = vectors("protocol");
const schema = new wire.Schema(frozen.schema);
const inputs = new wire.Fields(frozen.inputs);
const hex = (data) => Buffer.from(data).toString("hex");
const plain = (world) => Object.fromEntries(schema.names.map((name) => [name, [...world.rows(name).values()].map((row) => ({ ...row }))]));

test("client messages are encoded to the frozen bytes", () => {
  for (const { message, hex: wanted } of frozen.client) {
    const made = {
      hello: () => wire.encodeHello(message.token, message.spectator),
      input: () => wire.encodeInput({ ...message, records: message.moves.map((x) => inputs.encode({ move_x: x })) }),
      ping: () => wire.encodePing(message.clientMs),
      bye: () => wire.encodeBye(message.code, message.reason),
    }[message.type]();
    assert.equal(hex(made), wanted, message.type);
  }
});

test("server messages are decoded from the frozen bytes", () => {
  for (const { message, hex: sent } of frozen.server) {
    const read = wire.decodeServer(bytes(sent));
    assert.deepEqual(read.body === undefined ? read : { ...read, body: hex(read.body) }, message);
  }
});

test("inputs are encoded to the frozen records and read back as the server reads them", () => {
  for (const { values, hex: wanted, read } of frozen.records) {
    assert.equal(hex(inputs.encode(values)), wanted);
    assert.deepEqual({ ...inputs.decode(bytes(wanted)) }, read);
  }
  assert.throws(() => inputs.encode({ jump: 1 }), /unknown input field jump; there are: move_x/);
});

test("full snapshots are decoded to the frozen worlds", () => {
  for (const { full, tables } of frozen.worlds) assert.deepEqual(plain(wire.decodeFull(schema, bytes(full))), tables);
});

test("a delta applied to its baseline gives the frozen world, and leaves the baseline as it was", () => {
  for (const { from, to, hex: delta } of frozen.deltas) {
    const baseline = wire.decodeFull(schema, bytes(frozen.worlds[from].full));
    const world = wire.applyDelta(baseline, bytes(delta));
    assert.deepEqual(plain(world), frozen.worlds[to].tables, `${from} to ${to}`);
    assert.deepEqual(plain(baseline), frozen.worlds[from].tables);
  }
  assert.equal(frozen.deltas.length, frozen.worlds.length * (frozen.worlds.length - 1));
});

test("differences wrap at the width of their field, whichever mode carries them", () => {
  const small = new wire.Schema({ tables: [{ name: "t", fields: [{ name: "u", type: "u16" }, { name: "i", type: "i8" }] }] });
  const baseline = wire.decodeFull(small, bytes("0200" + "0100" + "0900" + "0000" + "ffff" + "80" + "7f"));
  const world = wire.applyDelta(baseline, bytes("0000" + "0000" + "04" + "ff" + "02" + "03" + "02" + "01"));
  assert.deepEqual([...world.rows("t").values()].map(({ u, i }) => [u, i]), [[65535, -128], [1, -128]]);
});

test("malformed bytes are a ProtocolError and nothing else", () => {
  const baseline = wire.decodeFull(schema, bytes(frozen.worlds[1].full));
  for (const bad of frozen.malformed.server) assert.throws(() => wire.decodeServer(bytes(bad)), wire.ProtocolError, bad);
  for (const bad of frozen.malformed.full) assert.throws(() => wire.decodeFull(schema, bytes(bad)), wire.ProtocolError, bad);
  for (const bad of frozen.malformed.delta_from_1) assert.throws(() => wire.applyDelta(baseline, bytes(bad)), wire.ProtocolError, bad);
});

test("any byte string decodes or is a ProtocolError", () => {
  const good = [...frozen.server.map(({ hex: sent }) => sent), ...frozen.deltas.slice(0, 12).map(({ hex: sent }) => sent)].map(bytes);
  const baseline = wire.decodeFull(schema, bytes(frozen.worlds[0].full));
  let state = 7;
  const random = () => (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648;
  let refused = 0;
  for (let n = 0; n < 4000; n++) {
    const data = good[n % good.length].slice(0, Math.ceil(random() * 400));
    for (let k = 0; k < 3; k++) data[Math.floor(random() * Math.min(data.length, 40))] = Math.floor(random() * 256);
    for (const read of [() => wire.decodeServer(data), () => wire.decodeFull(schema, data), () => wire.applyDelta(baseline, data)]) {
      try {
        read();
      } catch (error) {
        assert.ok(error instanceof wire.ProtocolError, String(error));
        refused += 1;
      }
    }
  }
  assert.ok(refused > 4000);
});

test("a description that makes no sense is a ProtocolError", () => {
  const table = (field) => ({ tables: [{ name: "t", fields: [field] }] });
  const bad = [
    null, [], {}, { tables: [] }, { tables: [null] }, { tables: [{ name: "t" }] },
    table({ name: "id", type: "u8" }), table({ name: "a", type: "u64" }), table({ name: "a", type: "toString" }), table({ type: "u8" }),
    table({ name: "a", type: "float" }), table({ name: "a", type: "float", min: 1, max: 0, precision: 1 }),
    table({ name: "a", type: "float", min: 0, max: 1, precision: 1e-12 }),
    { tables: [{ name: "t", fields: [] }, { name: "t", fields: [] }] },
    { tables: [{ name: "t", fields: [{ name: "a", type: "u8" }, { name: "a", type: "u8" }] }] },
  ];
  for (const description of bad) assert.throws(() => new wire.Schema(description), wire.ProtocolError, JSON.stringify(description));
});
