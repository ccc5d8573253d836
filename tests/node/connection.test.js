// Connections, the way back after losses, and whole journeys, against a far end that the test plays.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Connection, Link, Matchmaking, NetSim, Warmfleet } from "../../gameserver/client/js/index.js";
import { FakeClock, fakeWebSockets, place, server, settle } from "./fakes.js";

function connect(more = {}) {
  const clock = new FakeClock();
  const { sockets, FakeWebSocket } = fakeWebSockets();
  const told = [];
  const handler = {
    welcome: ({ seat }) => told.push(["welcome", seat]),
    snapshot: ({ tick, world }) => told.push(["snapshot", tick, world.rows("players").get(1)?.x]),
    event: ({ data }) => told.push(["event", data.name]),
    migrate: (data) => told.push(["migrate", data.reason]),
    end: ({ name, reason }) => told.push(["end", name, reason]),
  };
  const connection = new Connection({ url: "ws://h:1/", token: "seat", handler, clock, WebSocket: FakeWebSocket, ...more });
  return { clock, socket: sockets[0], told, connection };
}

test("a client says Hello, is welcomed, and follows full and delta snapshots", () => {
  const { socket, told, connection } = connect();
  assert.deepEqual(socket.protocols, ["warmfleet.1"]);
  socket.open();
  assert.deepEqual(socket.sent, ["010100" + "0400" + Buffer.from("seat").toString("hex")]);
  socket.say(server.welcome({ seat: 3 }));
  socket.say(server.full(10, 5));
  socket.say(server.delta(11, 10, 2));
  socket.say(server.delta(12, 10, -1));
  socket.say(server.event(1, { name: "kill" }));
  assert.deepEqual(told, [["welcome", 3], ["snapshot", 10, 5], ["snapshot", 11, 7], ["snapshot", 12, 4], ["event", "kill"]]);
  assert.equal(connection.snapshots, 3);
});

test("an input is numbered, acknowledges what was seen, and is told as the server will read it", () => {
  const { socket, connection } = connect();
  socket.open();
  assert.throws(() => connection.sendInput({ move: 1 }), /after Welcome/);
  socket.say(server.welcome());
  socket.say(server.full(10, 5));
  socket.say(server.event(1, { name: "kill" }));
  assert.deepEqual({ ...connection.sendInput({ move: 500 }, 9.5).values }, { move: 127 });
  assert.equal(connection.sendInput({ move: -1 }).seq, 2);
  assert.deepEqual(socket.sent.slice(-2), [
    "02" + "0a000000" + "01000000" + "80090000" + "01000000" + "01" + "7f",
    "02" + "0a000000" + "01000000" + "00000000" + "02000000" + "01" + "ff",
  ]);
});

test("inputs are not piled up on a network that stands still", () => {
  const { socket, connection } = connect();
  socket.open();
  socket.say(server.welcome());
  socket.bufferedAmount = 1e6;
  const before = socket.sent.length;
  assert.equal(connection.sendInput({ move: 1 }).seq, 1);
  assert.equal(socket.sent.length, before);
});

test("bytes that break the protocol end the connection, and say why", () => {
  const cases = [
    [() => [server.full(1, 1)], /a snapshot before Welcome/],
    [() => [server.welcome(), server.welcome()], /welcomed twice/],
    [() => [server.welcome(), server.delta(5, 4, 1)], /baseline 4/],
    [() => [server.welcome(), server.full(5, 1).subarray(0, 17)], /too few/],
    [() => [server.welcome(), server.event(2, {})], /event 2 after 0/],
    [() => [server.welcome({ room: { schema: 1, inputs: {} } })], /no object/],
    [() => [Buffer.of(0x99)], /unknown type 0x99/],
    [() => [server.pong(1, 1)], /a pong before Welcome/],
    [() => ["text"], /a text frame/],
  ];
  for (const [messages, why] of cases) {
    const { socket, told } = connect();
    socket.open();
    for (const message of messages()) socket.say(message);
    const [kind, name, reason] = told.at(-1);
    assert.deepEqual([kind, name, socket.closed], ["end", "malformed", 4002]);
    assert.match(reason, why);
    assert.equal(socket.sent.at(-1).slice(0, 4), "0402");
    socket.say(server.bye(0));
    assert.equal(told.filter(([what]) => what === "end").length, 1);
  }
});

test("a connection ends by Bye, by the close code, or by its loss", () => {
  for (const [far, wanted] of [
    [(socket) => socket.say(server.bye(8, "rude")), ["end", "kicked", "rude"]],
    [(socket) => socket.drop(4005, "slow"), ["end", "too_slow", "slow"]],
    [(socket) => socket.drop(4012), ["end", "fenced", "fenced"]],
    [(socket) => socket.drop(1006), ["end", "timeout", "the connection was lost"]],
  ]) {
    const { socket, told } = connect();
    socket.open();
    socket.say(server.welcome());
    far(socket);
    assert.deepEqual(told.at(-1), wanted);
  }
});

test("a server that does not answer, or goes silent, is given up", async () => {
  const mute = connect();
  mute.socket.open();
  await mute.clock.pass(4999);
  assert.deepEqual(mute.told, []);
  await mute.clock.pass(1);
  assert.deepEqual(mute.told, [["end", "timeout", "the server does not answer"]]);

  const silent = connect();
  silent.socket.open();
  silent.socket.say(server.welcome());
  await silent.clock.pass(3000);
  silent.socket.say(server.full(1, 1));
  await silent.clock.pass(4000);
  assert.deepEqual(silent.told.at(-1), ["snapshot", 1, 1]);
  await silent.clock.pass(1000);
  assert.deepEqual(silent.told.at(-1), ["end", "timeout", "the server went silent"]);
});

test("pings measure the round trip and set the clock by the quickest", async () => {
  const { clock, socket, connection } = connect();
  socket.open();
  socket.say(server.welcome({ rate: 20 }));
  const pinged = () => Buffer.from(socket.sent.at(-1), "hex").readUInt32LE(1);
  assert.equal(pinged(), 1000);
  await clock.pass(40);
  socket.say(server.pong(1000, 500)); // 20 ms ago the server was at tick 500
  assert.equal(connection.latencyMs, 40);
  assert.ok(Math.abs(connection.serverTick(clock.now()) - 500.4) < 1e-9);
  await clock.pass(1000);
  await clock.pass(400);
  socket.say(server.pong(pinged(), 520)); // a slow one, that would be wrong
  assert.ok(Math.abs(connection.serverTick(clock.now()) - (500.4 + 1400 / 50)) < 1e-9);
});

test("through a simulated network everything comes later, the end too", async () => {
  const clock = new FakeClock();
  const network = new NetSim({ delayMs: 100, random: () => 1, clock });
  const { socket, told, connection } = connect({ clock, network });
  socket.open();
  assert.equal(socket.sent.length, 0);
  await clock.pass(100);
  assert.equal(socket.sent.length, 1);
  socket.say(server.welcome());
  socket.say(server.full(3, 2));
  socket.drop();
  assert.deepEqual(told, []);
  await clock.pass(100);
  assert.deepEqual(told.map(([what]) => what), ["welcome", "snapshot", "end"]);
  assert.ok(connection.ended);
});

function link({ seats = [], assignment = place(7001) } = {}) {
  const clock = new FakeClock();
  const { sockets, FakeWebSocket } = fakeWebSockets();
  const told = [];
  const asked = [];
  const handler = {
    connected: (connection, at) => told.push(`connected ${at.server}`),
    snapshot: ({ tick }) => told.push(`snapshot ${tick}`),
    event: ({ data }) => told.push(`event ${data.name}`),
    moving: (why) => told.push(`moving ${why}`),
    lost: ({ name }) => told.push(`lost ${name}`),
    over: ({ name, reason }) => told.push(`over ${name} ${reason}`),
  };
  const seat = async (session) => {
    asked.push([session, clock.now()]);
    const next = seats.length > 1 ? seats.shift() : seats[0];
    if (next instanceof Error) throw next;
    return next;
  };
  const made = new Link({ assignment, seat, handler, clock, random: () => 0.5, WebSocket: FakeWebSocket });
  const play = (k, tick = 1) => {
    sockets[k].open();
    sockets[k].say(server.welcome());
    sockets[k].say(server.full(tick, 1));
  };
  return { clock, sockets, told, asked, link: made, play };
}

const refused = (status) => Object.assign(new Error(`HTTP ${status}`), { status });

test("after a loss the matchmaker is asked where the match is, and it goes on there", async () => {
  const { clock, sockets, told, asked, play } = link({ seats: [refused(0), refused(503), place(7002, 2)] });
  assert.equal(sockets[0].url, "ws://127.0.0.1:7001/");
  play(0);
  sockets[0].drop();
  await clock.pass(400);
  assert.deepEqual(asked.map(([, at]) => at - 1000), [50, 150, 350]);
  assert.equal(sockets[1].url, "ws://127.0.0.1:7002/");
  play(1, 9);
  assert.deepEqual(told, ["connected s1", "snapshot 1", "lost timeout", "connected s2", "snapshot 9"]);
});

test("a server that speaks TLS is dialled as wss, also where the session moves", async () => {
  const { clock, sockets, play } = link({ seats: [{ ...place(7002, 2), host: "203-0-113-7.games.example", secure: true }] });
  play(0);
  sockets[0].drop();
  await clock.pass(400);
  assert.equal(sockets[1].url, "wss://203-0-113-7.games.example:7002/");
});

test("a moving session keeps its old connection until the new one has its first snapshot", async () => {
  const { sockets, told, play } = link();
  play(0);
  sockets[0].say(server.migrate({ session: "arena.M1", reason: "drain", assignment: place(7002, 2) }));
  sockets[1].open();
  sockets[1].say(server.welcome());
  sockets[1].say(server.event(1, { name: "joined" }));
  sockets[0].say(server.full(2, 1));
  assert.equal(sockets[0].closed, null);
  sockets[1].say(server.full(3, 1));
  assert.equal(sockets[0].closed, 1000);
  assert.deepEqual(told, ["connected s1", "snapshot 1", "moving drain", "snapshot 2", "connected s2", "event joined", "snapshot 3"]);
});

test("told to move before the new place is known, the old one goes on meanwhile", async () => {
  const { clock, sockets, told, asked, play } = link({ seats: [place(7001, 1), place(7001, 1), place(7002, 2)] });
  play(0);
  sockets[0].say(server.migrate({ session: "arena.M1" }));
  await clock.pass(200);
  assert.equal(asked.length, 3);
  assert.equal(sockets.length, 2);
  sockets[0].drop(4001);
  play(1, 4);
  assert.deepEqual(told.slice(-2), ["connected s2", "snapshot 4"]);
  assert.ok(!told.some((line) => line.startsWith("lost")));
});

test("a place that does not answer does not hold the asking up", async () => {
  const { clock, sockets, told, play } = link({ seats: [place(7001, 1), place(7001, 1), place(7001, 1), place(7002, 2)] });
  play(0);
  sockets[0].drop();
  await clock.pass(100); // asked: it is where it was; dialled again, and nobody answers there
  assert.equal(sockets.length, 2);
  await clock.pass(900); // asked meanwhile: it has moved
  assert.equal(sockets.length, 3);
  assert.equal(sockets[1].closed, 1000);
  play(2, 8);
  assert.deepEqual(told, ["connected s1", "snapshot 1", "lost timeout", "connected s2", "snapshot 8"]);
});

test("a server that falls silent is suspected before its connection ends", async () => {
  const { clock, sockets, told, asked, play } = link({ seats: [place(7001, 1), place(7001, 1), place(7002, 2)] });
  play(0);
  await clock.pass(400);
  assert.equal(asked.length, 0, "as long as all is well, nobody is asked");
  sockets[0].say(server.full(2, 1));
  await clock.pass(499);
  assert.equal(asked.length, 0);
  await clock.pass(300);
  assert.equal(asked.length, 3);
  play(1, 7);
  assert.deepEqual(told.slice(2), ["snapshot 2", "connected s2", "snapshot 7"].slice(told[2] === "snapshot 2" ? 0 : 1));
  assert.ok(!told.some((line) => line.startsWith("lost")));
});

test("a path that is broken for both is left for a new connection to the same place", async () => {
  const { clock, sockets, play } = link({ seats: [place(7001, 1)] });
  play(0);
  await clock.pass(1900);
  assert.equal(sockets.length, 1);
  await clock.pass(1000);
  assert.ok(sockets.length > 1);
});

test("a spectator's way is a player's, and says that it only watches", () => {
  const { sockets, FakeWebSocket } = fakeWebSockets();
  const handler = { connected() {}, snapshot() {}, event() {}, moving() {}, lost() {}, over() {} };
  new Link({ assignment: place(7001), seat: async () => place(7001), handler, clock: new FakeClock(), spectator: true, WebSocket: FakeWebSocket });
  sockets[0].open();
  assert.equal(sockets[0].sent[0].slice(0, 6), "010101");
});

test("results come before the end, and are kept", async () => {
  const { clock, sockets, told, asked, link: made, play } = link();
  play(0);
  sockets[0].say(server.event(1, { name: "results", results: { winners: ["ann"] } }));
  assert.deepEqual(made.connection.results, { winners: ["ann"] });
  sockets[0].say(server.bye(0, "the match is over"));
  await clock.pass(3000);
  assert.equal(told.at(-1), "over normal the match is over");
  assert.equal(asked.length, 0);
});

test("a page that sends no inputs still acknowledges what it is shown", async () => {
  const { clock, socket, connection } = connect();
  socket.open();
  socket.say(server.welcome());
  connection.sendInput({ move: 3 }, 1);
  const inputs = () => socket.sent.filter((sent) => sent.startsWith("02"));
  for (let tick = 10; tick < 20; tick++) {
    socket.say(server.full(tick, 5));
    await clock.pass(50);
  }
  assert.ok(inputs().length >= 4 && inputs().length <= 7, `${inputs().length} inputs`);
  assert.equal(inputs().at(-1).slice(26), inputs()[0].slice(26), "the same number and record: the server drops it");
  assert.ok(parseInt(inputs().at(-1).slice(2, 4), 16) >= 17);

  for (const seat of [65535, 1]) { // whoever only watches, or has not done anything yet
    const watching = connect();
    watching.socket.open();
    watching.socket.say(server.welcome({ seat }));
    watching.socket.say(server.full(10, 5));
    assert.equal(watching.socket.sent.at(-1).slice(0, 10), "020a000000");
    assert.equal(watching.socket.sent.at(-1).slice(26, 36), "0000000001", "number 0: never applied");
  }
});

test("a clock that was set is noticed by the first pong that contradicts it", async () => {
  const { clock, socket, connection } = connect();
  socket.open();
  socket.say(server.welcome({ rate: 20 }));
  const now = () => clock.now();
  socket.say(server.pong(now() - 40, 500));
  assert.ok(Math.abs(connection.serverTick(now()) - 500.4) < 0.01);
  await clock.pass(1000);
  socket.say(server.pong(now() - 60, 900)); // 20 s ahead of what the quicker pong said
  assert.ok(Math.abs(connection.serverTick(now()) - 900.6) < 0.01);
});

test("a match that is over is over", async () => {
  const bye = link();
  bye.play(0);
  bye.sockets[0].say(server.bye(0, "the match is over"));
  assert.equal(bye.told.at(-1), "over normal the match is over");

  const gone = link({ seats: [refused(410)] });
  gone.play(0);
  gone.sockets[0].drop();
  await gone.clock.pass(100);
  assert.equal(gone.told.at(-1), "over normal the match is over");

  const kicked = link();
  kicked.play(0);
  kicked.sockets[0].say(server.bye(8, "rude"));
  await kicked.clock.pass(60_000);
  assert.equal(kicked.told.at(-1), "over kicked rude");
  assert.equal(kicked.asked.length, 0);
});

test("a refused token is replaced by a fresh one", async () => {
  const { clock, sockets, told, play } = link({ seats: [place(7001, 1, { token: "fresh" })] });
  sockets[0].open();
  sockets[0].say(server.bye(3, "expired"));
  await clock.pass(100);
  play(1);
  assert.ok(Buffer.from(sockets[1].sent[0], "hex").toString().endsWith("fresh"));
  assert.deepEqual(told, ["lost unauthorized", "connected s1", "snapshot 1"]);
});

test("patience ends after half a minute", async () => {
  const { clock, sockets, told, play } = link({ seats: [refused(503)] });
  play(0);
  sockets[0].drop();
  await clock.pass(29_000);
  assert.equal(told.at(-1), "lost timeout");
  await clock.pass(6000);
  assert.equal(told.at(-1), "over timeout the connection was lost");
});

test("a player who leaves says Bye, and nothing comes after", async () => {
  const { clock, sockets, told, asked, link: made, play } = link({ seats: [place(7002)] });
  play(0);
  made.leave();
  assert.equal(sockets[0].sent.at(-1).slice(0, 4), "0400");
  sockets[0].drop(4000);
  await clock.pass(1000);
  assert.equal(told.at(-1), "over normal left");
  assert.equal(asked.length, 0);
});

test("an address that the browser refuses ends the journey with its words", () => {
  const told = [];
  class Refusing {
    constructor() {
      throw new SyntaxError("the address is invalid");
    }
  }
  const handler = { over: ({ reason }) => told.push(reason) };
  new Link({ assignment: place(1, 1, { host: "a b" }), seat: async () => place(1), handler, clock: new FakeClock(), WebSocket: Refusing });
  new Link({ assignment: place(1, 1, { ports: {} }), seat: async () => place(1), handler, clock: new FakeClock(), WebSocket: Refusing });
  new Link({ assignment: place(1, 1, { host: 7 }), seat: async () => place(1), handler, clock: new FakeClock(), WebSocket: Refusing });
  assert.deepEqual(told, ["the address is invalid", "the server takes no WebSockets", "the server takes no WebSockets"]);
});

test("from ticket to results: phases, own inputs shown at once, the server's word taken", async () => {
  const clock = new FakeClock();
  const { sockets, FakeWebSocket } = fakeWebSockets();
  const states = ["queued", "searching", "assigned"].map((state) => ({ id: "duel.1", state, ...(state === "assigned" ? { assignment: place(7001) } : {}) }));
  const fetch = async (url) =>
    url.endsWith("/events")
      ? new Response(states.map((state, k) => `id: ${k}\nevent: state\ndata: ${JSON.stringify(state)}\n\n`).join(""))
      : Response.json(states[0]);
  const client = new Warmfleet({ baseUrl: "http://m", token: "jwt", player: "p1", clock, fetch, WebSocket: FakeWebSocket });
  const phases = [];
  client.on("phase", (phase) => phases.push(phase));
  const predict = { table: "players", apply: (s, input, dtS) => ({ ...s, x: s.x + input.move * dtS }), smooth: ["x"], snap: 5 };
  const over = client.play("duel", { predict });
  for (let k = 0; k < 20; k++) await settle();
  sockets[0].open();
  sockets[0].say(server.welcome({ seat: 1, rate: 20 }));
  sockets[0].say(server.full(1, 10));
  await clock.pass(100);
  client.frame(() => ({ move: 20 }));
  assert.equal(client._prediction.state.x, 12);
  assert.equal(client._prediction.pending, 2);
  sockets[0].say(server.full(2, 11, 1));
  assert.equal(client._prediction.state.x, 12);
  assert.ok(client.me().x >= 11 && client.me().x <= 12);
  await assert.rejects(client.play("duel"), /already playing/);
  sockets[0].say(server.bye(0, "the match is over"));
  assert.deepEqual(await over, { code: 0, name: "normal", reason: "the match is over" });
  assert.deepEqual(phases, ["queueing", "connecting", "playing", "over"]);
});

test("a refused ticket and a ticket that times out say so", async () => {
  const clock = new FakeClock();
  const answers = [
    [() => Response.json({ title: "Conflict", detail: "a live ticket in duel" }, { status: 409 }), "a live ticket in duel"],
    [
      (url) => (url.endsWith("/events") ? new Response('data: {"id":"t","state":"timed_out"}\n\n') : Response.json({ id: "t", state: "queued" })),
      "the ticket is timed out",
    ],
  ];
  for (const [answer, reason] of answers) {
    const client = new Warmfleet({ baseUrl: "http://m", token: "", player: "p", clock, fetch: async (url) => answer(url) });
    assert.equal((await client.play("duel")).reason, reason);
    assert.equal(client.phase, "failed");
  }
});

test("ticket states resume where their stream broke off", async () => {
  const clock = new FakeClock();
  const headers = [];
  const bodies = [
    'id: 4\r\nevent: state\r\ndata: {"id":"t",\r\ndata: "state":"queued"}\r\n\r\n: still here\n\ndata: {"id":',
    'id: 6\ndata: {"id":"t","state":"failed","reason":"no"}\n\n',
  ];
  const fetch = async (url, request) => {
    headers.push(request.headers["Last-Event-ID"]);
    return new Response(bodies.shift());
  };
  const matchmaking = new Matchmaking({ baseUrl: "http://m/", token: "jwt", fetch, clock });
  const seen = [];
  const following = (async () => {
    for await (const { state } of matchmaking.states("t")) seen.push(state);
  })();
  for (let k = 0; k < 20; k++) await settle();
  await clock.pass(1000);
  await following;
  assert.deepEqual(seen, ["queued", "failed"]);
  assert.deepEqual(headers, [undefined, "4"]);
});

test("a stream that falls silent is asked for anew", async () => {
  const clock = new FakeClock();
  let asked = 0;
  const fetch = async () => {
    asked += 1;
    if (asked > 1) return new Response('data: {"id":"t","state":"assigned"}\n\n');
    return new Response(new ReadableStream({ start: (stream) => stream.enqueue(Buffer.from('data: {"id":"t","state":"queued"}\n\n')) }));
  };
  const seen = [];
  const following = (async () => {
    for await (const { state } of new Matchmaking({ baseUrl: "http://m", fetch, clock }).states("t")) seen.push(state);
  })();
  await clock.pass(59_000);
  assert.deepEqual([seen, asked], [["queued"], 1]);
  await clock.pass(2000);
  await following;
  assert.deepEqual(seen, ["queued", "assigned"]);
});

test("where no stream comes through, states come over a WebSocket, else by asking", async () => {
  for (const webSocketWorks of [true, false]) {
    const clock = new FakeClock();
    const { sockets, FakeWebSocket } = fakeWebSockets();
    const polled = ["queued", "queued", "assigned"];
    const fetch = async (url) => {
      if (url.endsWith("/events")) throw new TypeError("blocked");
      return Response.json({ id: "t", state: polled.shift() });
    };
    const matchmaking = new Matchmaking({ baseUrl: "http://m", token: "a.b.c", fetch, WebSocket: FakeWebSocket, clock });
    const seen = [];
    const following = (async () => {
      for await (const { state } of matchmaking.states("t")) seen.push(state);
    })();
    await clock.pass(300);
    assert.equal(sockets[0].url, "ws://m/v1/tickets/t/watch");
    assert.deepEqual(sockets[0].protocols, ["warmfleet.tickets.1", "bearer.a.b.c"]);
    if (webSocketWorks) for (const state of ["queued", "assigned"]) sockets[0].say(JSON.stringify({ id: "t", state }));
    else sockets[0].drop();
    await clock.pass(5000);
    await following;
    assert.deepEqual(seen, ["queued", "assigned"]);
  }
});

test("leaving the queue cancels the ticket", async () => {
  const clock = new FakeClock();
  const calls = [];
  const fetch = async (url, request) => {
    calls.push(`${request.method ?? "GET"} ${url}`);
    if (!url.endsWith("/events")) return Response.json({ id: "duel.1", state: "queued" });
    const { signal } = request;
    return new Response(new ReadableStream({ start: (stream) => signal.addEventListener("abort", () => stream.error(signal.reason)) }));
  };
  const client = new Warmfleet({ baseUrl: "http://m", token: "", player: "p", clock, fetch });
  const over = client.play("duel");
  for (let k = 0; k < 20; k++) await settle();
  client.leave();
  await clock.pass(0);
  assert.equal((await over).name, "cancelled");
  assert.deepEqual(calls, ["POST http://m/v1/tickets", "GET http://m/v1/tickets/duel.1/events", "DELETE http://m/v1/tickets/duel.1"]);
});
