/** The page around the canvas: menu, queue, scores, feed, results. Text goes in as text only: names come from other players. */

const FEED_MS = 5000;
const ROWS = 8;
const STEPS = ["queued", "searching", "placing", "assigned"];
const STATES = { queued: "In the queue", searching: "Looking for players", proposed: "Match found", placing: "Getting a server", assigned: "Connecting" };

export const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** Show one of the cards, or none. @param {"menu" | "party" | "queueing" | "results" | ""} name */
export function showCard(name) {
  for (const id of ["menu", "party", "queueing", "results"]) element(id).hidden = id !== name;
}

export function showProblem(text) {
  element("problem").textContent = text;
  element("problem").hidden = text === "";
}

/** Where the ticket stands. */
export function showTicket(state) {
  const at = STEPS.indexOf(state === "proposed" ? "placing" : state);
  element("state").textContent = STATES[state] ?? "Queueing";
  for (const [k, name] of STEPS.entries()) {
    const step = /** @type {HTMLElement} */ (document.querySelector(`[data-step="${name}"]`));
    step.className = k < at ? "done" : k === at ? "now" : "";
  }
}

/** Ask whether to accept a match; undefined takes the question away. @param {{accepted: number, players: number} | undefined} acceptance @param {boolean} said whether this player has */
export function showProposal(acceptance, said) {
  element("proposal").hidden = acceptance === undefined;
  if (acceptance === undefined) return;
  element("accepted").textContent = `${acceptance.accepted} of ${acceptance.players} players have accepted.`;
  for (const id of ["accept", "decline"]) /** @type {HTMLButtonElement} */ (element(id)).disabled = said;
}

export function showWait(seconds) {
  element("wait").textContent = `${seconds.toFixed(1)} s`;
}

/** What the matchmaker says about the wait. @param {string} text */
export function showExplanation(text) {
  element("explanation").textContent = text;
}

/** A banner at the top; empty text takes it away. */
export function showBanner(text, good = false) {
  const banner = element("banner");
  banner.hidden = text === "";
  banner.className = good ? "good" : "";
  if (banner.textContent !== text) banner.textContent = text;
}

/** Build a tag with text or children. */
function make(tag, content = "", more = {}) {
  const made = Object.assign(document.createElement(tag), more);
  if (typeof content === "string") made.textContent = content;
  else made.append(...content);
  return made;
}

function coloured(tag, content, colour) {
  const made = make(tag, content);
  made.style.setProperty("--colour", colour);
  return made;
}

export class Hud {
  constructor() {
    this.clear();
  }

  clear() {
    this._scores = "";
    element("feed").replaceChildren();
    element("down").hidden = true;
  }

  /**
   * @param {object} frame
   * @param {{name: string, colour: string, score: number, deaths: number, alive: boolean, mine: boolean}[]} frame.players best first
   * @param {number} frame.leftS
   * @param {number} frame.health 0 to 1
   * @param {boolean} frame.down
   * @param {string} frame.readout
   */
  update({ players, leftS, health, down, readout }) {
    const key = JSON.stringify(players);
    if (key !== this._scores) {
      this._scores = key;
      this._drawScores(players);
    }
    const timer = element("timer");
    const text = `${Math.floor(leftS / 60)}:${String(leftS % 60).padStart(2, "0")}`;
    if (timer.textContent !== text) timer.textContent = text;
    timer.classList.toggle("last", leftS <= 10);
    const bar = /** @type {HTMLElement} */ (element("health").firstElementChild);
    bar.style.transform = `scaleX(${health})`;
    bar.style.background = health > 0.35 ? "var(--good)" : "var(--alarm)";
    element("down").hidden = !down;
    if (element("readout").textContent !== readout) element("readout").textContent = readout;
  }

  /** Say what happened; words in pairs of text and colour, "" for none. @param {[string, string][]} words */
  tell(words) {
    const line = make("li", words.flatMap(([text, colour]) => [colour === "" ? text : coloured("b", text, colour), " "]));
    const feed = element("feed");
    feed.append(line);
    while (feed.childElementCount > 6) feed.firstElementChild?.remove();
    setTimeout(() => line.classList.add("fading"), FEED_MS - 500);
    setTimeout(() => line.remove(), FEED_MS);
  }

  /** The own row is shown even where it is not among the best. */
  _drawScores(players) {
    const shown = players.slice(0, ROWS);
    const mine = players.find((player) => player.mine);
    if (mine !== undefined && !shown.includes(mine)) shown[ROWS - 1] = mine;
    const rows = shown.map((player) => {
      const name = make("span", player.name, { className: "who" });
      const row = coloured("li", [make("i"), name, make("span", String(player.score))], player.colour);
      row.className = `${player.mine ? "me" : ""} ${player.alive ? "" : "fallen"}`;
      return row;
    });
    element("scores").replaceChildren(...rows);
  }
}

/**
 * @param {{title: string, won: boolean, reason: string, players: {name: string, colour: string, score: number, deaths: number, mine: boolean}[]}} result
 */
export function showResults({ title, won, reason, players }) {
  element("verdict").textContent = title;
  element("verdict").className = won ? "won" : "";
  element("reason").textContent = reason;
  /** @type {HTMLElement} */ (document.querySelector("#results table")).hidden = players.length === 0;
  const rows = players.map(({ name, colour, score, deaths, mine }) => {
    const row = coloured("tr", [make("td", [make("i"), name]), make("td", String(score)), make("td", String(deaths))], colour);
    row.className = mine ? "me" : "";
    return row;
  });
  element("table").replaceChildren(...rows);
  showCard("results");
}
