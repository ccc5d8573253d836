/**
 * A page for any game: queues, plays, and draws every table that has `x` and `y`, from nothing but the game's schema.
 *
 * A game may say more in `info().playground` (all of it optional): `title`; `width` and `height` of its field; `ground`, a colour; `shapes`, a list of
 * `{circle: [x, y, radius] | box: [left, top, right, bottom], fill, stroke}`; `tables`, for each name `{radius, colour, label, seats, ring: field, when: {field: colour}}` (`seats`: its ids are those of the players); and
 * `totals`, for fields of a table without places the words behind their number. Query: `queue` (default: the first one), `name`, and `loss`, `delay`, `jitter`, `dup`,
 * `seed` for a worse network. `window.warmfleetState` says what goes on, for tests and the curious.
 */

import { Matchmaking, NetSim, Warmfleet } from "./index.js";

const query = new URLSearchParams(location.search);
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const canvas = /** @type {HTMLCanvasElement} */ (element("view"));
const COLOURS = ["#ff6b6b", "#5aa9ff", "#5fe3a1", "#ffd166", "#c792ff", "#4fd9e8", "#ff9fd0", "#ffa05a"];
const MARGIN = 16;
const TEXT_MS = 100;
const keys = new Set();
addEventListener("keydown", (event) => {
  if (event.target === document.body && /^(Arrow|Space)/.test(event.code)) event.preventDefault(); // no scrolling
  keys.add(event.code);
});
addEventListener("keyup", (event) => keys.delete(event.code));
addEventListener("blur", () => keys.clear());

const held = (...codes) => codes.some((code) => keys.has(code));
const axis = (less, more) => Number(held(...more)) - Number(held(...less));

/** One input: fields named like a direction follow the keys, on/off ones the space bar, all others stay zero. */
function sample(fields) {
  const input = {};
  for (const { name, type } of fields) {
    if (/x$/.test(name)) input[name] = axis(["ArrowLeft", "KeyA"], ["ArrowRight", "KeyD"]);
    else if (/y$/.test(name)) input[name] = axis(["ArrowUp", "KeyW"], ["ArrowDown", "KeyS"]);
    else if (type === "bool") input[name] = held("Space");
  }
  return input;
}

/** The tables that have places, and the others, whose numbers are told. */
function sort(schema) {
  const placed = ({ fields }) => ["x", "y"].every((axis) => ["float", "f32"].includes(fields.find(({ name }) => name === axis)?.type));
  return { drawn: schema.tables.filter(placed), told: schema.tables.filter((table) => !placed(table)) };
}

/** How far the field reaches: as the game says, else as its first table with places can. */
function extent(hints, drawn) {
  if (hints.width > 0 && hints.height > 0) return { left: 0, top: 0, width: hints.width, height: hints.height };
  const field = (axis) => drawn[0]?.fields.find(({ name }) => name === axis) ?? {};
  const [x, y] = [field("x"), field("y")];
  if (!Number.isFinite(x.max - x.min)) return { left: -50, top: -50, width: 100, height: 100 };
  return { left: x.min, top: y.min, width: x.max - x.min, height: y.max - y.min };
}

function draw(client) {
  const ratio = Math.min(devicePixelRatio || 1, 2);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const style = getComputedStyle(document.documentElement);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  if (client.welcome === null) return;
  const hints = client.welcome.room.info?.playground ?? {};
  const { drawn } = sort(client.welcome.room.schema);
  const field = extent(hints, drawn);
  const scale = Math.min((width - 2 * MARGIN) / field.width, (height - 2 * MARGIN) / field.height);
  pen.translate((width - field.width * scale) / 2, (height - field.height * scale) / 2);
  pen.scale(scale, scale);
  pen.translate(-field.left, -field.top);
  pen.fillStyle = hints.ground ?? style.getPropertyValue("--ground");
  pen.beginPath();
  pen.roundRect(field.left, field.top, field.width, field.height, 8 / scale);
  pen.fill();
  for (const shape of hints.shapes ?? []) drawShape(pen, shape, scale);
  drawn.forEach((table, number) => drawTable(pen, client, table, number, hints.tables?.[table.name] ?? {}, scale, style));
}

function drawShape(pen, { circle, box, fill, stroke }, scale) {
  pen.beginPath();
  if (circle) pen.arc(circle[0], circle[1], circle[2], 0, 7);
  if (box) pen.rect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
  pen.lineWidth = 2.5 / scale;
  if (fill) pen.fillStyle = fill;
  if (fill) pen.fill();
  if (stroke) pen.strokeStyle = stroke;
  if (stroke) pen.stroke();
}

function drawTable(pen, client, { name }, number, hints, scale, style) {
  const mine = (hints.seats ?? name === "players") ? client.seat : -1;
  const radius = Math.max(hints.radius ?? 0, 3.5 / scale);
  const few = client.rows(name).size <= 40;
  for (const [id, row] of client.rows(name)) {
    const colour = Object.entries(hints.when ?? {}).reduce((chosen, [field, own]) => (row[field] ? own : chosen), hints.colour) ?? COLOURS[(id + number) % COLOURS.length];
    if (hints.ring && row[hints.ring]) disc(pen, row, radius * 2.2, `${colour}55`);
    disc(pen, { x: row.x, y: row.y + radius * 0.25 }, radius, "#0003");
    disc(pen, row, radius, colour);
    if (id === mine) {
      pen.strokeStyle = style.getPropertyValue("--ink");
      pen.lineWidth = 2.5 / scale;
      pen.stroke();
    }
    if (!(hints.label ?? few)) continue;
    const label = id === mine ? "you" : String(id);
    pen.font = `600 ${12 / scale}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.fillStyle = style.getPropertyValue("--ink");
    pen.strokeStyle = style.getPropertyValue("--page");
    pen.lineWidth = 3 / scale;
    pen.lineJoin = "round";
    pen.strokeText(label, row.x, row.y - radius - 5 / scale);
    pen.fillText(label, row.x, row.y - radius - 5 / scale);
  }
}

function disc(pen, { x, y }, radius, colour) {
  pen.fillStyle = colour;
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.fill();
}

/** The numbers of the tables that have no places. */
function tell(client) {
  const words = client.welcome.room.info?.playground?.totals ?? {};
  const parts = [];
  for (const { name } of sort(client.welcome.room.schema).told) {
    for (const row of client.rows(name).values()) {
      for (const [field, value] of Object.entries(row)) if (field !== "id") parts.push([value, words[field] ?? field.replaceAll("_", " ")]);
    }
  }
  element("totals").replaceChildren(
    ...parts.slice(0, 8).map(([value, word]) => {
      const item = document.createElement("li");
      const number = document.createElement("b");
      number.textContent = typeof value === "number" ? String(+value.toFixed(2)) : String(value);
      item.append(number, ` ${word}`);
      return item;
    }),
  );
}

function curtain(what, why = "", again = false) {
  element("curtain").hidden = what === "";
  element("what").textContent = what;
  element("why").textContent = why;
  element("again").hidden = !again;
}

const EXPLAIN_MS = 2500;
/** The ticket whose wait is being explained. */
let explained = "";
const PHASES = { queueing: "Waiting for players", connecting: "Connecting", reconnecting: "Looking for your match", playing: "" };

/** Accept whatever match is proposed, and say why a ticket still waits. */
async function waiting(client, queue, { id, state }) {
  try {
    if (state === "proposed") return await client.accept();
    if (state !== "searching" || explained === id) return;
    explained = id; // one at a time
    for (; client.ticket?.id === id && client.ticket.state === "searching"; await new Promise((resolve) => setTimeout(resolve, EXPLAIN_MS))) {
      const { verdict, detail, estimatedWait } = await client.matchmaking.explanation(id);
      if (client.ticket?.id !== id || client.phase !== "queueing") return;
      const more = verdict === "few-players" ? " A second tab is a second player." : estimatedWait ? ` Mostly within ${Math.ceil(estimatedWait.within)} s.` : "";
      curtain(PHASES.queueing, `Queue “${queue}”: ${detail}.${more}`);
    }
  } catch {
    // the wait goes on without reasons
  }
  explained = "";
}

function publish(client, error = "") {
  /** @type {any} */ (window).warmfleetClient = client;
  /** @type {any} */ (window).warmfleetState = {
    phase: client.phase, session: client.assignment?.session ?? null, server: client.assignment?.server ?? null, epoch: client.assignment?.epoch ?? 0,
    tick: client.tick, snapshots: client.snapshots, seat: client.seat, results: client.results, error,
    rows: client.welcome === null ? {} : Object.fromEntries(client.welcome.room.schema.tables.map(({ name }) => [name, client.rows(name).size])),
  };
}

async function main() {
  const { player, token } = await new Matchmaking({ baseUrl: location.origin }).developmentPlayer(query.get("name") ?? "");
  const client = new Warmfleet({ baseUrl: location.origin, player, token, network: NetSim.fromQuery(query) });
  const queue = query.get("queue") ?? (await client.matchmaking.queues())[0].name;
  let toldAt = 0;
  client.on("phase", (phase, why) => {
    document.body.dataset.phase = phase;
    if (phase in PHASES) curtain(PHASES[phase], phase === "queueing" ? `Queue “${queue}”; a second tab is a second player.` : why);
  });
  client.on("ticket", (ticket) => waiting(client, queue, ticket));
  client.on("welcome", ({ room }) => (element("title").textContent = room.info?.playground?.title ?? room.game));
  const frame = (now) => {
    if (client.phase === "playing") client.frame(() => sample(client.welcome.room.inputs.fields));
    draw(client);
    if (client.welcome !== null && now - toldAt > TEXT_MS) {
      toldAt = now;
      tell(client);
    }
    element("status").textContent = `${player} · tick ${client.tick} · ${Math.round(client.latencyMs)} ms · ${Math.round(client.delayMs)} ms behind`;
    publish(client);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  for (;;) {
    const end = await client.play(queue, { attributes: { rating: 1500 }, interpolate: {} });
    const results = client.results === null ? "" : Object.entries(client.results).map(([key, value]) => `${key.replaceAll("_", " ")}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
    curtain(end.code === 0 ? "The match is over" : "That did not go well", results || end.reason, true);
    await new Promise((resolve) => element("again").addEventListener("click", resolve, { once: true }));
  }
}

main().catch((error) => curtain("That did not go well", String(error)));
