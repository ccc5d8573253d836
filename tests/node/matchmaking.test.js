// Parties, acceptance and explanations, against a matchmaker that the test plays.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Matchmaking, MatchmakingError, Warmfleet } from "../../gameserver/client/js/index.js";
import { FakeClock, fakeWebSockets, place, settle } from "./fakes.js";

const json = (body, status = 200) => new Response(body === null ? null : JSON.stringify(body), { status });
const events = (...bodies) => new Response(bodies.map((body, k) => `id: ${k + 1}\ndata: ${JSON.stringify(body)}\n\n`).join(""));

/** Answers by what is asked, and notes it. */
function matchmaker(answers) {
  const asked = [];
  const fetch = async (url, request = {}) => {
    const what = `${request.method ?? "GET"} ${url.replace("http://m", "")}`;
    asked.push(request.body === undefined ? what : `${what} ${request.body}`);
    const answer = answers[what];
    if (answer === undefined) return json({ detail: "unknown" }, 404);
    return typeof answer === "function" ? answer() : answer;
  };
  return { asked, fetch };
}

test("a party is made, joined, ready, queued and left", async () => {
  const party = { id: "p", code: "K7PX2MQA", members: [] };
  const { asked, fetch } = matchmaker({
    "POST /v1/parties": json(party, 201),
    "POST /v1/parties/join": json(party),
    "PUT /v1/parties/p/members/ann": json(party),
    "POST /v1/parties/p/tickets": json({ id: "squad.1", state: "queued" }, 201),
    "DELETE /v1/parties/p/members/ann": json(null, 204),
    "GET /v1/parties/mine": json(party),
  });
  const { parties } = new Matchmaking({ baseUrl: "http://m", token: "jwt", fetch, clock: new FakeClock() });
  assert.equal((await parties.create({ attributes: { rating: 1 } })).code, "K7PX2MQA");
  await parties.join(" k7px2mqa ");
  await parties.ready("p", "ann", true);
  assert.equal((await parties.queue("p", "squad")).id, "squad.1");
  assert.equal((await parties.mine()).id, "p");
  await parties.leave("p", "ann");
  await parties.leave("p", "bob"); // has gone already
  assert.deepEqual(asked, [
    'POST /v1/parties {"attributes":{"rating":1}}',
    'POST /v1/parties/join {"code":"k7px2mqa"}',
    'PUT /v1/parties/p/members/ann {"ready":true}',
    'POST /v1/parties/p/tickets {"queue":"squad"}',
    "GET /v1/parties/mine",
    "DELETE /v1/parties/p/members/ann",
    "DELETE /v1/parties/p/members/bob",
  ]);
});

test("who is in no party is told so, and refusals keep their status", async () => {
  const { fetch } = matchmaker({ "POST /v1/parties/join": json({ detail: "code: too many wrong ones" }, 429) });
  const { parties } = new Matchmaking({ baseUrl: "http://m", token: "jwt", fetch, clock: new FakeClock() });
  assert.equal(await parties.mine(), null);
  await assert.rejects(parties.join("x"), (error) => error instanceof MatchmakingError && error.status === 429 && /too many/.test(error.message));
});

test("a party is followed through a broken stream until one is out of it", async () => {
  const clock = new FakeClock();
  let streams = 0;
  let reads = 0;
  const { fetch } = matchmaker({
    "GET /v1/parties/p/events": () => (++streams < 3 ? events({ version: streams }) : json({ detail: "gone" }, 404)),
    "GET /v1/parties/p": () => json({ version: 10 + ++reads }),
  });
  const { parties } = new Matchmaking({ baseUrl: "http://m", token: "jwt", fetch, clock });
  const seen = [];
  const following = (async () => {
    for await (const { version } of parties.states("p")) seen.push(version);
  })();
  for (let k = 0; k < 20; k++) {
    await settle();
    await clock.pass(1000);
  }
  await following;
  assert.deepEqual(seen, [1, 11, 2, 12]);
});

test("a member plays its party's ticket, accepts its match, and asks why it waits", async () => {
  const clock = new FakeClock();
  const { FakeWebSocket } = fakeWebSockets();
  let proposed = () => {};
  const stream = new ReadableStream({
    start(controller) {
      const say = (body) => controller.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(body)}\n\n`));
      say({ id: "t", state: "proposed", acceptance: { accepted: 1, players: 2, deadline: "" } });
      proposed = () => {
        say({ id: "t", state: "assigned", assignment: place(7001) });
        controller.close();
      };
    },
  });
  const { asked, fetch } = matchmaker({
    "GET /v1/tickets/t": json({ id: "t", state: "searching", estimatedWait: { seconds: 2, within: 9 } }),
    "GET /v1/tickets/t/events": new Response(stream),
    "GET /v1/tickets/t/explanation": json({ verdict: "rule", detail: "difference rating lets 0 of 3 others meet it" }),
    "POST /v1/tickets/t/acceptance": () => {
      proposed();
      return json({ id: "t", state: "placing" });
    },
  });
  const client = new Warmfleet({ baseUrl: "http://m", token: "jwt", player: "bob", clock, fetch, WebSocket: FakeWebSocket });
  await assert.rejects(client.accept(), /no ticket/);
  const states = [];
  client.on("ticket", ({ state }) => states.push(state));
  client.playTicket("t");
  await settle();
  assert.equal(client.ticket.acceptance.players, 2);
  assert.match((await client.matchmaking.explanation("t")).detail, /0 of 3/);
  await client.accept();
  for (let k = 0; k < 5; k++) await settle();
  assert.deepEqual(states, ["searching", "proposed", "assigned"]);
  assert.equal(client.phase, "connecting");
  assert.ok(asked.includes('POST /v1/tickets/t/acceptance {"accept":true}'));
  client.leave();
});
