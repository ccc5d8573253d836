/**
 * The arena's page: from the menu (or a party) through the queue into the match and to the results.
 *
 * Query: `queue` (default: duel, else the first there is), `play=1` (begin at once), `name`, `party` (join it by this code), and `loss`, `delay`, `jitter`, `dup`, `seed` for a worse network. `window.warmfleetState` says
 * what goes on, for tests and the curious.
 */

import { Matchmaking, MatchmakingError, NetSim, Warmfleet } from "/sdk/index.js";
import { Controls } from "./controls.js";
import { Effects } from "./effects.js";
import { element, Hud, showBanner, showCard, showExplanation, showProblem, showProposal, showResults, showTicket, showWait } from "./hud.js";
import { PartyCard } from "./party.js";
import { walk } from "./slide.js";
import { View } from "./view.js";

const query = new URLSearchParams(location.search);
let queueName = query.get("queue") || "";
/** The wait after which the matchmaker is asked how the queue does, and how often. */
const EXPLAIN_AFTER_MS = 1500;
const TOAST_MS = 2500;
/** Text is read more slowly than ships are followed. */
const HUD_MS = 100;
/** A ship's own muzzle flashes at once, at the pace of its gun. */
const COOLDOWN_MS = 220;
/** Sessions are kept for this tab only, so that a reload comes back to the match. */
const KEPT = "warmfleet.arena";

const view = new View(/** @type {HTMLCanvasElement} */ (element("field")));
const controls = new Controls(element("field"));
const effects = new Effects();
const hud = new Hud();

/** @type {Warmfleet | null} */
let client = null;
/** @type {{player: string, token: string, name: string} | null} */
let identity = null;
/** @type {Map<number, {player: string, team: string}>} who sits where */
let seated = new Map();
/** @type {{tick: number, data: any}[]} events whose time has not been shown yet */
let coming = [];
/** @type {any} */
let results = null;
let [queuedAt, explainedAt, lastFrame, firedAt, bannerUntil, hudAt, fps] = [0, 0, 0, 0, 0, 0, 60];
/** @type {Map<number, boolean>} */
let aliveBefore = new Map();
let lastError = "";
/** From the click on Play until the match is over: one at a time. */
let busy = false;
/** Whether this player has answered for the match that is proposed. */
let accepted = false;
/** @type {any} what the field looked like when the match ended: the results stand before it */
let stillLife = null;

// ---- the way into a match and out of it ----

async function signIn() {
  const name = /** @type {HTMLInputElement} */ (element("name")).value.trim();
  if (identity === null || identity.name !== name) {
    const { player, token } = await new Matchmaking({ baseUrl: location.origin }).developmentPlayer(name);
    identity = { player, token, name };
  }
  return identity;
}

async function play() {
  if (busy) return;
  if (card.party !== null) {
    showCard("party"); // its leader starts
    return;
  }
  showProblem("");
  await journey(async (made) => {
    queueName ||= firstQueue(await made.matchmaking.queues());
    return made.play(queueName, options());
  });
}

const brings = () => ({ attributes: options().attributes });

const card = new PartyCard({
  nameOf,
  queued: (ticket) => busy || journey((made) => made.playTicket(ticket, options())),
  changed: () => publish(),
  left: (problem) => busy || toMenu(problem),
});

/** Be in a party: a new one, or that of a code. */
async function gather(code = "") {
  showProblem("");
  try {
    const { player, token } = await signIn();
    await card.enter(new Matchmaking({ baseUrl: location.origin, token }), player, brings(), code);
    if (!busy) showCard("party");
  } catch (error) {
    if (!(error instanceof MatchmakingError)) throw error;
    toMenu(error.message);
  }
}

/** @param {(client: Warmfleet) => Promise<import("/sdk/index.js").End>} begin */
async function journey(begin) {
  busy = true;
  try {
    const { player, token } = await signIn();
    client = makeClient(player, token);
    const end = await begin(client);
    finish(client, end);
  } catch (error) {
    if (!(error instanceof MatchmakingError)) throw error;
    toMenu(error.status === 404 ? "There are no development players here: start with `warmfleet up`." : error.message);
  } finally {
    client = null;
    busy = false;
  }
}

/** The queue to play in where the page's address names none. */
function firstQueue(queues) {
  return (queues.find(({ name }) => name === "duel") ?? queues[0])?.name ?? "duel";
}

function options() {
  return {
    attributes: { rating: 1500 },
    predict: { table: "players", smooth: ["x", "y"], snap: 3, apply },
    interpolate: { angles: ["aim"], teleport: 3 },
  };
}

function apply(state, input, dtS) {
  const { map, radius, speed } = room();
  return walk(map, radius, speed, state, input, dtS);
}

function makeClient(player, token) {
  const made = new Warmfleet({ baseUrl: location.origin, player, token, network: NetSim.fromQuery(query) });
  made.on("phase", entered);
  made.on("ticket", ticketChanged);
  made.on("welcome", welcomed);
  made.on("event", (event) => coming.push(event));
  made.on("snapshot", () => document.hidden && publish()); // a hidden page has no frames
  made.on("moving", () => showBanner("The match moves to another server"));
  [seated, coming, results, aliveBefore, stillLife] = [new Map(), [], null, new Map(), null];
  effects.clear();
  hud.clear();
  return made;
}

function ticketChanged(ticket) {
  showTicket(ticket.state);
  if (ticket.state !== "proposed") accepted = false;
  showProposal(ticket.state === "proposed" ? ticket.acceptance : undefined, accepted);
}

async function answer(accept) {
  accepted = true;
  showProposal(client?.ticket?.acceptance, true);
  try {
    await client?.accept(accept);
  } catch (error) {
    if (!(error instanceof MatchmakingError)) throw error; // too late: the ticket's stream says what came of it
  }
}

function entered(phase, why) {
  document.body.dataset.phase = phase;
  if (phase === "queueing") {
    queuedAt = explainedAt = performance.now();
    showTicket("queued");
    showExplanation("");
    showCard("queueing");
  } else if (phase === "connecting") showTicket("assigned");
  else if (phase === "reconnecting") showBanner("Connection lost. Looking for your match…");
  if (["reconnecting", "failed"].includes(phase)) lastError = why;
  element("hud").hidden = !["playing", "reconnecting"].includes(phase);
}

function welcomed(welcome) {
  // After a move the new server knows nobody yet: what was known of the others stays.
  for (const player of welcome.room.info.players ?? []) seated.set(player.seat, player);
  seated.set(welcome.seat, { player: welcome.room.player, team: welcome.room.team });
  showCard("");
  if (client !== null && client.reconnects > 0) {
    coming = []; // what was under way belongs to another clock
    showBanner(`Back in the match, on ${client.assignment?.server ?? "its server"}`, true);
    bannerUntil = performance.now() + TOAST_MS;
  } else showBanner("");
  keep({ identity, session: welcome.room.session });
}

function finish(ended, end) {
  keep({ identity });
  controls.release();
  element("hud").hidden = true;
  showBanner("");
  if (end.name === "cancelled" || end.reason === "left") {
    toMenu("");
    return;
  }
  if (ended.welcome === null) {
    toMenu(`No match: ${end.reason}`);
    return;
  }
  stillLife = { ...ended.welcome.room.info, ships: ships(), bullets: [], effects, controls };
  const over = results ?? coming.find(({ data }) => data.name === "over")?.data;
  const rows = ranking(ended.connection?.world ?? null);
  if (over === undefined || over === null) {
    showResults({ title: end.code === 0 ? "Match over" : "The match broke off", won: false, reason: end.reason, players: rows });
    return;
  }
  const winners = over.winners ?? [];
  const won = winners.includes(ended.player);
  const title = won ? (winners.length > 1 ? "A draw" : "You win") : "You lose";
  const by = winners.map(nameOf).join(" and ");
  showResults({ title, won, reason: won ? "Well flown." : `${by} flew better this time.`, players: rows });
}

function toMenu(problem) {
  document.body.dataset.phase = "idle";
  stillLife = null;
  element("hud").hidden = true;
  showBanner("");
  showProblem(problem);
  if (problem !== "") lastError = problem;
  showCard(card.party === null ? "menu" : "party");
}

function keep(what) {
  sessionStorage.setItem(KEPT, JSON.stringify(what));
}

/** Back into the match after a reload; a tab that was copied is someone else. */
function kept() {
  const [navigation] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
  try {
    return navigation?.type === "reload" ? JSON.parse(sessionStorage.getItem(KEPT) ?? "{}") : {};
  } catch {
    return {}; // not ours
  }
}

/** Rejoin the match that this tab was in; where that is no longer possible, the menu says nothing of it. */
async function comeBack(session) {
  if (identity === null || typeof session !== "string") return;
  try {
    await new Matchmaking({ baseUrl: location.origin, token: identity.token }).seat(session);
  } catch {
    identity = null;
    return;
  }
  await journey((made) => made.rejoin(session, options()));
}

// ---- what is on the field ----

function room() {
  return /** @type {any} */ (client?.welcome?.room.info ?? { map: null, radius: 0.5, speed: 0, health: 100 });
}

/** A player's id ends in what makes it unique; people read what stands before. */
function nameOf(player) {
  return player.replace(/[-.~#][A-Za-z0-9]{4,}$/, "") || player;
}

function who(seat) {
  const { player = `Seat ${seat}`, team = "" } = seated.get(seat) ?? {};
  return { name: seat === client?.seat ? "You" : nameOf(player), colour: view.colour(seat, team) };
}

function ranking(world) {
  if (world === null) return [];
  return [...world.rows("players").values()]
    .map(({ id, score, deaths, alive }) => ({ ...who(id), score, deaths, alive, mine: id === client?.seat }))
    .sort((a, b) => b.score - a.score || a.deaths - b.deaths);
}

function ships() {
  const shown = [];
  for (const [id, row] of client?.rows("players") ?? []) if (id !== client?.seat) shown.push({ ...row, ...who(id), mine: false });
  const me = client?.me();
  if (me != null) shown.push({ ...me, ...who(me.id), aim: aimNow(me), mine: true });
  for (const { id, x, y, alive, colour } of shown) {
    if (alive && aliveBefore.get(id) === false) effects.spawn(x, y, colour);
    aliveBefore.set(id, alive);
  }
  return shown;
}

/** The own gun follows the hand without waiting for a tick. */
function aimNow(me) {
  return document.body.dataset.phase === "playing" ? controls.sample(view.toScreen(me)).aim : me.aim;
}

function happened({ name, ...data }) {
  const mine = client?.seat;
  if (name === "joined") {
    const known = seated.get(data.seat)?.player === data.player;
    seated.set(data.seat, data);
    if (data.seat !== mine && !known) hud.tell([[who(data.seat).name, who(data.seat).colour], ["joined", ""]]);
  } else if (name === "players") for (const player of data.players) seated.set(player.seat, player); // a crowd's, many at once
  else if (name === "left") hud.tell([[who(data.seat).name, who(data.seat).colour], ["left", ""]]);
  else if (name === "hit") effects.hit(data.of, data.x, data.y, who(data.of).colour, data.of === mine);
  else if (name === "kill") {
    effects.kill(data.x, data.y, who(data.of).colour, data.of === mine);
    hud.tell([[who(data.by).name, who(data.by).colour], ["shot", ""], [who(data.of).name.replace("You", "you"), who(data.of).colour]]);
  } else if (name === "over") results = data;
}

// ---- frames ----

function frame(now) {
  const dtS = Math.min(0.1, (now - lastFrame) / 1000) || 0.016;
  lastFrame = now;
  fps += (1 / dtS - fps) * 0.05;
  const scene = stillLife ?? { ...room(), ships: [], bullets: [], effects, controls };
  if (client !== null && client.welcome !== null && stillLife === null) {
    const me = client.me();
    client.frame(() => controls.sample(me === null ? null : view.toScreen(me)));
    const due = coming.filter(({ tick }) => tick <= client.shownTick);
    coming = coming.filter((event) => !due.includes(event));
    for (const { data } of due) happened(data);
    scene.ships = ships();
    scene.bullets = [...client.rows("bullets").values()].map(({ id, x, y, owner }) => ({ id, x, y, colour: who(owner).colour }));
    flashMuzzles(me, now);
    if (client.phase === "playing" && now - hudAt > HUD_MS) {
      hudAt = now;
      updateHud(me);
    }
    if (bannerUntil !== 0 && now > bannerUntil) {
      bannerUntil = 0;
      if (client.phase === "playing") showBanner("");
    }
  } else if (client?.phase === "queueing") waiting(now);
  effects.step(dtS);
  view.draw(scene, dtS);
  publish();
  requestAnimationFrame(frame);
}

function flashMuzzles(me, now) {
  if (me?.alive && controls.sample(null).fire && now - firedAt > COOLDOWN_MS) {
    firedAt = now;
    effects.muzzle(me.id);
  }
}

function updateHud(me) {
  const world = client?.connection?.world ?? null;
  const leftS = world?.rows("match").get(0)?.left_s ?? 0;
  const { latencyMs, jitterMs, delayMs, assignment } = /** @type {Warmfleet} */ (client);
  const readout = [
    `${Math.round(latencyMs)} ms · jitter ${Math.round(jitterMs)} ms · shown ${Math.round(delayMs)} ms late · ${Math.round(fps)} fps`,
    `${assignment?.server ?? ""} · ${assignment?.temperature ?? ""}`,
  ].join("\n");
  hud.update({ players: ranking(world), leftS, health: me === null ? 0 : me.health / room().health, down: me !== null && !me.alive, readout });
}

function waiting(now) {
  showWait((now - queuedAt) / 1000);
  if (client === null || client.ticket === null || now - explainedAt < EXPLAIN_AFTER_MS) return;
  explainedAt = now;
  client.matchmaking.explanation(client.ticket.id).then(
    (found) => showExplanation(explain(found)),
    () => {}, // the wait goes on without reasons
  );
}

/** Say what the wait is for, and how long it may take. @param {import("/sdk/index.js").Explanation} found */
function explain({ verdict, detail, waiting, candidates, estimatedWait: wait }) {
  const about = wait === undefined ? "" : ` Others waited ${spoken(wait.seconds)} more, nine of ten no longer than ${spoken(wait.within)}.`;
  if (verdict !== "few-players") return `${detail[0].toUpperCase()}${detail.slice(1)}.${about}`;
  const there = `A match takes ${candidates?.wanted ?? "some"} more; ${waiting?.tickets ?? 0} ${waiting?.tickets === 1 ? "is" : "are"} in the queue.`;
  return `${there} Open this page in a second window to play against yourself.${about}`;
}

const spoken = (seconds) => (seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`);

/** What tests and the curious look at. */
function publish() {
  const me = client?.me() ?? null;
  const spot = ({ id, x, y, score }) => ({ id, x, y, score });
  Object.assign(state, {
    phase: client?.phase ?? (element("results").hidden ? "idle" : "results"),
    ticket: client?.ticket ? { id: client.ticket.id, state: client.ticket.state } : state.ticket,
    session: client?.assignment?.session ?? state.session,
    player: identity?.player ?? null,
    party: card.party === null ? null : { code: card.party.code, leader: card.party.leader, members: card.party.members.length },
    server: client?.assignment?.server ?? state.server,
    epoch: client?.welcome?.epoch ?? state.epoch,
    me: me === null ? null : spot(me),
    others: [...(client?.rows("players").values() ?? [])].filter(({ id }) => id !== client?.seat).map(spot),
    tick: client?.tick ?? state.tick,
    snapshots: client?.snapshots ?? state.snapshots,
    reconnects: client?.reconnects ?? state.reconnects,
    latency_ms: client?.latencyMs ?? 0,
    jitter_ms: client?.jitterMs ?? 0,
    correction: client?.correction ?? 0,
    error: lastError,
  });
}

const state = { ticket: null, session: null, server: null, epoch: 0, tick: 0, snapshots: 0, reconnects: 0 };
Object.assign(window, { warmfleetState: state });

element("start").addEventListener("submit", (event) => {
  event.preventDefault();
  play();
});
element("gather").addEventListener("click", () => gather());
element("accept").addEventListener("click", () => answer(true));
element("decline").addEventListener("click", () => answer(false));
element("cancel").addEventListener("click", () => client?.leave());
element("leave").addEventListener("click", () => client?.leave());
element("again").addEventListener("click", play);
element("back").addEventListener("click", () => toMenu(""));

const before = kept();
identity = before.identity ?? null;
/** @type {HTMLInputElement} */ (element("name")).value = query.get("name") ?? identity?.name ?? "";
requestAnimationFrame(frame);
new Matchmaking({ baseUrl: location.origin }).queues().then(
  (queues) => (element("gather").hidden = !queues.some(({ partyMax }) => partyMax > 1)),
  () => {}, // without the matchmaker there is nobody to play with
);
await comeBack(before.session);
if (!busy && query.has("party")) await gather((query.get("party") ?? "").toUpperCase());
else if (!busy && query.get("play") === "1" && element("results").hidden) play();
