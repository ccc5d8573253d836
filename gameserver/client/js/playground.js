/**
 * A page for any game: queues, plays, and draws every table that has `x` and `y`, from nothing but the game's schema.
 *
 * Query: `queue` (default: the first one), `name`. For a first look at a new game; a real page uses the SDK as this one does.
 */

import { Matchmaking, Warmfleet } from "./index.js";

const query = new URLSearchParams(location.search);
const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById("view"));
const status = /** @type {HTMLElement} */ (document.getElementById("status"));
const COLOURS = ["#e4572e", "#2e86e4", "#3aa655", "#b06fd8", "#e0a030"];
const keys = new Set();
addEventListener("keydown", (event) => keys.add(event.code));
addEventListener("keyup", (event) => keys.delete(event.code));

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

function draw(client) {
  const paint = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  paint.clearRect(0, 0, canvas.width, canvas.height);
  client.welcome.room.schema.tables.forEach(({ name, fields }, table) => {
    const x = fields.find((field) => field.name === "x");
    const y = fields.find((field) => field.name === "y");
    if (x?.type !== "float" || y?.type !== "float") return;
    for (const [id, row] of client.rows(name)) {
      const left = ((row.x - x.min) / (x.max - x.min)) * canvas.width;
      const top = ((row.y - y.min) / (y.max - y.min)) * canvas.height;
      paint.fillStyle = COLOURS[(id + table) % COLOURS.length];
      paint.beginPath();
      paint.arc(left, top, 9, 0, 2 * Math.PI);
      paint.fill();
      const rest = Object.entries(row).filter(([key]) => !["id", "x", "y"].includes(key));
      paint.fillStyle = getComputedStyle(document.body).color;
      paint.fillText([id, ...rest.map(([key, value]) => `${key} ${typeof value === "number" ? +value.toFixed(2) : value}`)].join("  "), left + 13, top + 4);
    }
  });
}

async function main() {
  const { player, token } = await new Matchmaking({ baseUrl: location.origin }).developmentPlayer(query.get("name") ?? "");
  const client = new Warmfleet({ baseUrl: location.origin, player, token });
  const queue = query.get("queue") ?? (await client.matchmaking.queues())[0].name;
  const frame = () => {
    if (client.welcome !== null && client.phase === "playing") {
      client.frame(() => sample(client.welcome.room.inputs.fields));
      draw(client);
    }
    status.textContent = `${player} in ${queue}: ${client.phase}, tick ${client.tick}, ${Math.round(client.latencyMs)} ms`;
    requestAnimationFrame(frame);
  };
  frame();
  await client.play(queue, { attributes: { rating: 1500 }, interpolate: {} });
}

main().catch((error) => {
  status.textContent = String(error);
});
