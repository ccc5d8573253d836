// The console: sections of tables, a dialog for what is asked and done. Keys: 1 to 6 choose a section, / filters, Escape closes.
import { Feed } from "./feed.js";
import { Charts, Table, ago, lasting, make, tell } from "./view.js";

const $ = (id) => document.getElementById(id);
const charts = new Charts($("charts"));
const feed = new Feed(takeToken(), { changed: draw, status, refused: signIn });
const MOODS = { Ready: "good", Allocated: "good", live: "good", open: "good", assigned: "good", Unhealthy: "bad", Error: "bad", gone: "bad", lost: "bad", Shutdown: "warn", draining: "warn", paused: "warn", timed_out: "bad", failed: "bad" };
const mood = (text) => [`state ${MOODS[text] ?? ""}`, text];
const name = (_, id) => ["name", id];

const SECTIONS = {
  fleets: table([
    { title: "fleet", cell: name },
    { title: "servers", cell: (row) => share(row), refresh: (cell, row) => cell.replaceChildren(share(row)), key: (row) => total(row) },
    { title: "Allocated", number: true, cell: (row) => row.allocated, key: (row) => row.allocated },
    { title: "Ready", number: true, cell: (row) => row.ready, key: (row) => row.ready },
    { title: "on the way", number: true, cell: (row) => row.other, key: (row) => row.other },
    { title: "shelf", number: true, cell: (row) => `${row.free} of ${row.wanted}`, key: (row) => row.free },
    { title: "waiting", number: true, cell: (row) => row.waiting, key: (row) => row.waiting },
    { title: "sessions", number: true, cell: (row) => row.sessions, key: (row) => row.sessions },
    { title: "recovered", number: true, cell: (row) => row.moved, key: (row) => row.moved },
    { title: "autoscaler", class: "why", cell: (row) => (row.reason ? ["failed", row.reason] : decision(row)) },
    actions([["Why…", (id) => why(id), true], ["Set shelf…", (id) => setShelf(id)]]),
  ]),
  servers: table([
    { title: "server", cell: name },
    { title: "fleet", cell: (row) => row.fleet, key: (row) => row.fleet },
    { title: "state", cell: (row) => mood(row.state), key: (row) => row.state },
    { title: "for", number: true, moves: true, cell: (row) => ago(row.since), key: (row) => -row.since },
    { title: "rooms", number: true, cell: (row) => row.rooms ?? "–", key: (row) => row.rooms },
    { title: "players", number: true, cell: (row) => row.players ?? "–", key: (row) => row.players },
    { title: "ticks late, 99 %", number: true, cell: (row) => lasting(row.late), key: (row) => row.late },
    { title: "version", cell: (row) => row.version, key: (row) => row.version },
    { title: "note", class: "why", cell: (row) => row.reason },
    actions([["Drain…", (id) => ask(`Drain ${id}?`, "Its matches are handed over or played to their end; then it is replaced.", "Drain", () => feed.call("POST", `servers/${id}/drain`), true)]]),
  ]),
  queues: table([
    { title: "queue", cell: name },
    { title: "state", cell: (row) => mood(row.closed || "open"), key: (row) => row.closed },
    { title: "tickets", number: true, cell: (row) => row.depth, key: (row) => row.depth },
    { title: "oldest", number: true, moves: true, cell: (row) => ago(row.oldest), key: (row) => row.oldest },
    { title: "wait, half", number: true, cell: (row) => lasting(row.p50), key: (row) => row.p50 },
    { title: "wait, 95 %", number: true, cell: (row) => lasting(row.p95), key: (row) => row.p95 },
    { title: "matches a minute", number: true, cell: (row) => row.perMinute, key: (row) => row.perMinute },
    { title: "why the oldest waits", class: "why", cell: (row) => row.why },
    actions([
      ["Pause…", (id) => close(id, "paused", "No tickets are taken in, and no matches made."), false, (row) => row.closed !== "paused"],
      ["Drain…", (id) => close(id, "draining", "No tickets are taken in; those that wait are matched."), false, (row) => row.closed !== "draining"],
      ["Open", (id) => act(() => feed.call("PUT", `queues/${id}`, { closed: "" })), false, (row) => row.closed !== ""],
    ]),
  ]),
  sessions: table([
    { title: "session", cell: name },
    { title: "fleet", cell: (row) => row.fleet, key: (row) => row.fleet },
    { title: "server", cell: (row) => ["name", row.server], key: (row) => row.server },
    { title: "state", cell: (row) => mood(row.state), key: (row) => row.state },
    actions([["Kick…", (id) => kick(id)], ["End…", (id) => ask(`End ${id}?`, "Its players are told that the match is over.", "End", () => feed.call("POST", `sessions/${id}/end`), true)]]),
  ]),
  tickets: table(
    [
      { title: "ticket", cell: (_, id) => make("button", { type: "button", class: "link", onclick: () => ticket(id) }, id) },
      { title: "queue", cell: (row) => row.queue, key: (row) => row.queue },
      { title: "state", cell: (row) => mood(row.state), key: (row) => row.state },
      { title: "since", number: true, moves: true, cell: (row) => ago(row.since), key: (row) => -row.since },
    ],
    { sort: 3 },
  ),
  events: table(
    [
      { title: "when", cell: (row) => new Date(row.at * 1000).toLocaleTimeString(), key: (row) => row.at },
      { title: "what", cell: (row) => row.kind, key: (row) => row.kind },
      { title: "of", cell: (row) => ["name", row.what], key: (row) => row.what },
      { title: "", class: "why", cell: (row) => row.text },
    ],
    { sort: 0, down: true },
  ),
};
const EMPTY = {
  fleets: "No fleet is known yet.",
  servers: "No server runs.",
  queues: "No queue is described.",
  sessions: "Nobody plays at the moment.",
  tickets: "No ticket has come since this console began to listen. The newest show here, each with its way.",
  events: "Nothing has happened. Recoveries, autoscaler decisions, failures and what operators do show here.",
};
const NAMES = Object.keys(SECTIONS);
let chosen = NAMES.includes(location.hash.slice(1)) ? location.hash.slice(1) : "fleets";
let drawing = 0;

function table(columns, options) {
  return new Table(columns, options);
}

/** Buttons of a row: [title, run, whether it only looks, when it is there]. */
function actions(list) {
  const cell = (row, id) => {
    const buttons = list.map(([title, run, looks]) => make("button", { type: "button", "data-acts": !looks, "aria-label": `${title} ${id}`, onclick: () => run(id) }, title));
    buttons.forEach((button, index) => (button.hidden = !(list[index][3]?.(row) ?? true)));
    return make("span", {}, ...buttons);
  };
  const refresh = (shown, row) => [...shown.firstElementChild.children].forEach((button, index) => (button.hidden = !(list[index][3]?.(row) ?? true)));
  return { title: "", class: "actions", cell, refresh };
}

function total(row) {
  return row.ready + row.allocated + row.other;
}

/** How many servers of how many there may be, as words and as a bar by state. */
function share(row) {
  const bar = make("span", { class: "bar", "aria-hidden": "true" });
  for (const state of ["allocated", "ready", "other"]) {
    const part = make("i", { class: state });
    part.style.width = `${(100 * row[state]) / Math.max(row.max, total(row), 1)}%`;
    bar.append(part);
  }
  return make("span", { class: "share" }, `${total(row)} of ${row.max}`, bar);
}

function decision(row) {
  const found = row.decision;
  if (!found) return "a fixed buffer";
  const remarks = [found.blind && "blind", found.limited && "at its max", found.old && "not renewed lately"].filter(Boolean);
  return [`${found.replicas} servers, ${found.buffer} Ready`, ...remarks].join(", ");
}

function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem("warmfleet-token", found);
    history.replaceState(null, "", location.pathname); // so that it is in no bookmark and on no screenshot
  }
  return found ?? sessionStorage.getItem("warmfleet-token") ?? "";
}

function status(text, kind) {
  tell($("link"), text);
  $("link").className = kind;
}

/** Asks for a token; it stays in this tab. */
function signIn(why) {
  status("signed out", "lost");
  document.body.classList.add("out");
  const had = feed.token !== "";
  const input = make("input", { type: "password", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "why" });
  const enter = (event) => {
    event.preventDefault();
    feed.token = input.value.trim();
    sessionStorage.setItem("warmfleet-token", feed.token);
    document.body.classList.remove("out");
    $("main").replaceChildren();
    feed.run();
  };
  const help = ["An operator's, a viewer's, or your own where people sign in. On a laptop ", make("code", {}, "warmfleet console"), " prints an address with one."];
  const hint = make("p", { id: "why", class: had ? "failed" : "dim" }, ...(had ? [why] : help));
  const form = make("form", { class: "sign-in", onsubmit: enter }, make("h2", {}, "Sign in"), make("label", {}, "Access token", input), hint, make("button", { class: "primary" }, "Sign in"));
  $("main").replaceChildren(form);
  input.focus();
}

function choose(section, focus) {
  chosen = section;
  history.replaceState(null, "", `#${section}`);
  draw();
  if (focus) document.querySelector(`[data-section=${section}]`).focus();
}

function tabs() {
  const buttons = NAMES.map((section) =>
    make("button", { type: "button", role: "tab", "data-section": section, "aria-controls": "main", onclick: () => choose(section) }, section[0].toUpperCase() + section.slice(1), make("span", { class: "count" })),
  );
  $("tabs").replaceChildren(...buttons);
  $("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) choose(NAMES[(NAMES.indexOf(chosen) + step + NAMES.length) % NAMES.length], true);
  });
}

function rowsOf(section) {
  if (section !== "events") return feed.state[section] ?? {};
  return Object.fromEntries(feed.events.map((event, index) => [`${event.at} ${event.what} ${index}`, event]));
}

/** At most once a frame, whatever comes in. */
function draw() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    if (!feed.role || document.body.classList.contains("out")) return;
    charts.show(feed.series, feed.points);
    for (const tab of $("tabs").children) {
      const section = tab.dataset.section;
      tab.setAttribute("aria-selected", section === chosen);
      tab.tabIndex = section === chosen ? 0 : -1;
      tab.lastElementChild.textContent = Object.keys(rowsOf(section)).length;
    }
    const shown = SECTIONS[chosen];
    const filter = $("filter").value.trim();
    shown.show(rowsOf(chosen), filter.toLowerCase());
    const empty = shown.rows.size === 0;
    const content = empty ? $("main").querySelector(".empty") ?? make("p", { class: "empty" }) : shown.element;
    if (empty) tell(content, filter ? `Nothing here matches “${filter}”. Escape in the filter shows all again.` : EMPTY[chosen]);
    if ($("main").firstElementChild !== content) $("main").replaceChildren(content);
    for (const button of $("main").querySelectorAll("[data-acts]")) button.disabled = feed.role !== "operator";
  });
}

// Dialogs.

function open(title, ...content) {
  const dialog = $("dialog");
  dialog.replaceChildren(make("form", { method: "dialog" }, make("h2", { id: "dialog-title" }, title), ...content));
  if (!dialog.open) dialog.showModal();
  return dialog.firstElementChild;
}

async function act(run) {
  try {
    await run();
    $("dialog").close();
  } catch (error) {
    open("That did not work", make("p", { class: "failed" }, error.message), buttons());
  }
}

function buttons(title, run, harms) {
  const cancel = make("button", { type: "submit", value: "cancel" }, title ? "Cancel" : "Close");
  return make("div", { class: "buttons" }, cancel, title && make("button", { type: "button", class: harms ? "primary danger" : "primary", onclick: () => act(run) }, title));
}

function ask(title, text, button, run, harms) {
  open(title, make("p", {}, text), buttons(button, run, harms));
}

function close(queue, closed, text) {
  ask(`Set ${queue} to ${closed}?`, text, "Do it", () => feed.call("PUT", `queues/${queue}`, { closed }));
}

function field(label, attributes) {
  const input = make("input", attributes);
  return [make("label", {}, label, input), input];
}

function setShelf(fleet) {
  const [label, input] = field("Rooms to keep claimable for the next hour; empty: the fleet's own figure", { type: "number", min: 0, max: 10000, value: feed.state.fleets[fleet].wanted });
  const run = () => feed.call("PUT", `fleets/${fleet}/shelf`, { rooms: input.value === "" ? null : Number(input.value) });
  open(`Shelf of ${fleet}`, label, buttons("Set", run));
}

function kick(session) {
  const [label, player] = field("Player", { required: true, maxlength: 64 });
  const [words, reason] = field("Reason, which the player is told", { maxlength: 200, value: "kicked by an operator" });
  open(`Kick from ${session}`, label, words, buttons("Kick", () => feed.call("POST", `sessions/${session}/kick`, { player: player.value, reason: reason.value }), true));
}

function why(fleet) {
  const found = feed.state.fleets[fleet].decision;
  const reasons = found ? found.reasons : ["Its buffer is a fixed number: `buffer: auto` follows the demand."];
  open(`Why ${fleet} has as many servers`, make("ul", { class: "reasons" }, ...reasons.map((reason) => make("li", {}, reason))), buttons());
}

async function ticket(id) {
  open(id, make("p", {}, "…"), buttons());
  try {
    const found = await feed.call("GET", `tickets/${encodeURIComponent(id)}`);
    const begin = found.steps[0]?.at;
    const steps = found.steps.map((step) => {
      const detail = [step.match && `match ${step.match}`, step.reason].filter(Boolean).join(", ");
      const when = make("time", { title: new Date(step.at * 1000).toLocaleString() }, `+${lasting(step.at - begin)}`);
      return make("li", { class: MOODS[step.state] }, make("strong", {}, step.state.replace("_", " ")), when, detail && make("span", { class: "dim" }, detail));
    });
    const players = (found.players ?? []).map((player) => player.id).join(", ");
    const reasons = found.why ? make("p", { class: "note" }, make("strong", {}, "Why it waits. "), found.why.detail) : null;
    open(id, players ? make("p", { class: "dim" }, `Players: ${players}`) : null, make("ol", { class: "timeline" }, ...steps), reasons, buttons());
  } catch (error) {
    open(id, make("p", { class: "failed" }, error.message), buttons());
  }
}

// Keys.

addEventListener("keydown", (event) => {
  if (event.target.matches("input") || $("dialog").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const section = NAMES[Number(event.key) - 1];
  if (section) choose(section, true);
  if (event.key === "/") {
    event.preventDefault();
    $("filter").focus();
  }
});
$("filter").addEventListener("input", draw);
$("filter").addEventListener("keydown", (event) => {
  if (event.key === "Escape") ($("filter").value = ""), draw();
});
setInterval(draw, 1000); // ages grow by themselves
tabs();
globalThis.warmfleetFeed = feed;
feed.run();
