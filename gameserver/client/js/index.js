/**
 * Warmfleet's browser SDK: from a ticket to a running match, in one class.
 *
 * ```js
 * const client = new Warmfleet({ baseUrl: location.origin, token, player });
 * client.on("phase", (phase) => …);
 * client.play("duel", { predict: { table: "players", apply, smooth: ["x", "y"], snap: 3 } });
 * // each frame:
 * client.frame(() => ({ move_x, move_y, aim, fire }));
 * draw(client.me(), client.rows("players"));
 * ```
 */

import { browserClock } from "./connection.js";
import { Interpolation } from "./interpolation.js";
import { Link } from "./link.js";
import { Matchmaking, MatchmakingError } from "./matchmaking.js";
import { Prediction } from "./prediction.js";

export { measureRegions } from "./beacons.js";
export { Connection, closeName } from "./connection.js";
export { Interpolation, turn } from "./interpolation.js";
export { Link } from "./link.js";
export { Matchmaking, MatchmakingError } from "./matchmaking.js";
export { Parties } from "./parties.js";
export { NetSim, seededRandom } from "./netsim.js";
export { Prediction } from "./prediction.js";
export { CloseCode, ProtocolError } from "./protocol.js";

/** Inputs made up for after a slow frame; a server grants no more. */
const MOST_AT_ONCE = 4;

export class Warmfleet {
  /**
   * @param {object} options
   * @param {string} options.baseUrl where the matchmaker is
   * @param {string} options.token the player's bearer token
   * @param {string} options.player the player's id
   * @param {import("./netsim.js").NetSim | null} [options.network] a worse network, simulated
   * @param {import("./index.js").Clock} [options.clock]
   * @param {typeof globalThis.fetch} [options.fetch]
   * @param {typeof globalThis.WebSocket} [options.WebSocket]
   */
  constructor({ baseUrl, token, player, network = null, clock = browserClock(), fetch, WebSocket }) {
    this.player = player;
    this._secure = baseUrl.startsWith("https:");
    this._network = network;
    this._clock = clock;
    this._WebSocket = WebSocket;
    this.matchmaking = new Matchmaking({ baseUrl, token, clock, fetch, WebSocket });
    /** @type {Map<string, Set<(...told: any[]) => void>>} */
    this._listeners = new Map();
    /** @type {import("./index.js").Phase} */
    this.phase = "idle";
    /** @type {import("./index.js").Ticket | null} */
    this.ticket = null;
    /** @type {import("./index.js").Assignment | null} */
    this.assignment = null;
    this._clear();
  }

  /**
   * Be told of `phase` (phase, why), `ticket` (ticket), `welcome` (welcome), `snapshot` ({tick, world, ackInput}), `event` ({tick, data}).
   * @param {string} name
   * @param {(...told: any[]) => void} listener
   * @returns {() => void} takes the listener away
   */
  on(name, listener) {
    const listeners = this._listeners.get(name) ?? new Set();
    this._listeners.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /**
   * Queue up, wait for a match, play it.
   * @param {string} queue
   * @param {import("./index.js").PlayOptions} [options]
   * @returns {Promise<import("./index.js").End>} when the match is over, or will not be
   */
  play(queue, options = {}) {
    const { attributes = {}, latencies = {} } = options;
    return this._play(options, () => this.matchmaking.createTicket(queue, [{ id: this.player, attributes, latencies }]));
  }

  /**
   * Wait for the match of a ticket that is there already, a party's, and play it.
   * @param {string} ticket
   * @param {import("./index.js").PlayOptions} [options]
   * @returns {Promise<import("./index.js").End>}
   */
  playTicket(ticket, options = {}) {
    return this._play(options, () => this.matchmaking.ticket(ticket));
  }

  /** Accept or decline the match that is proposed (the ticket's state is `proposed`). @param {boolean} [accept] */
  async accept(accept = true) {
    if (this.ticket === null) throw new Error("there is no ticket");
    await this.matchmaking.accept(this.ticket.id, accept); // the ticket's stream tells what came of it
  }

  /** @param {import("./index.js").PlayOptions} options @param {() => Promise<import("./index.js").Ticket>} ask */
  async _play(options, ask) {
    this._begin(options);
    const aborting = (this._aborting = new AbortController());
    this._enter("queueing", "");
    try {
      this.ticket = await ask();
      if (aborting.signal.aborted) return await this._cancelled(this.ticket.id);
      this._tell("ticket", this.ticket);
      for await (const ticket of this.matchmaking.states(this.ticket.id, aborting.signal)) {
        this.ticket = ticket;
        this._tell("ticket", ticket);
      }
    } catch (error) {
      if (!(error instanceof MatchmakingError)) throw error;
      return this._over("failed", { code: -1, name: "matchmaking", reason: error.message });
    }
    if (aborting.signal.aborted) return this._cancelled(this.ticket.id);
    const { state, reason, assignment } = this.ticket;
    if (state !== "assigned" || assignment === undefined) {
      return this._over("failed", { code: -1, name: state, reason: reason ?? `the ticket is ${state.replace("_", " ")}` });
    }
    return this._follow(assignment);
  }

  /**
   * Come back to a match, after the page was loaded anew.
   * @param {string} session
   * @param {import("./index.js").PlayOptions} [options]
   */
  async rejoin(session, options = {}) {
    this._begin(options);
    this._enter("connecting", "");
    try {
      return await this._follow(await this.matchmaking.seat(session));
    } catch (error) {
      if (!(error instanceof MatchmakingError)) throw error;
      return this._over("failed", { code: -1, name: "matchmaking", reason: error.message });
    }
  }

  /** Leave the queue or the match, whichever it is. */
  leave() {
    this._aborting?.abort();
    this._link?.leave();
  }

  /**
   * Move time on; call it once per frame. Sends the inputs that are due, one per tick of the server.
   * @param {() => Record<string, number | boolean>} sample what the player does now
   */
  frame(sample) {
    const now = this._clock.now();
    if (this._interpolation === null) return;
    this.shownTick = this._interpolation.advance(now);
    const connection = this.connection;
    if (connection === null || connection.ended) return;
    const intervalMs = this._intervalMs;
    this._inputAtMs = Math.max(this._inputAtMs, now - (MOST_AT_ONCE + 1) * intervalMs);
    for (; now - this._inputAtMs >= intervalMs; this._inputAtMs += intervalMs) {
      const { seq, values } = connection.sendInput(sample(), this.shownTick);
      this._prediction?.push(seq, values);
    }
  }

  /** The player's own row, predicted; null before it is there. */
  me() {
    const now = this._clock.now();
    return this._prediction?.view(now, Math.min(1, (now - this._inputAtMs) / this._intervalMs)) ?? null;
  }

  /** A table's rows by id, interpolated at the shown time. @param {string} table */
  rows(table) {
    return this._interpolation?.rows(table) ?? new Map();
  }

  /** @returns {import("./connection.js").Connection | null} */
  get connection() {
    return this._link?.connection ?? null;
  }

  get latencyMs() {
    return this.connection?.latencyMs ?? 0;
  }

  get jitterMs() {
    return this._interpolation?.jitterMs ?? 0;
  }

  /** How far in the past others are shown. */
  get delayMs() {
    return this._interpolation?.delayMs ?? 0;
  }

  /** By how much the newest snapshot moved the predicted own row. */
  get correction() {
    return this._prediction?.lastCorrection ?? 0;
  }

  get reconnects() {
    return this._link?.reconnects ?? 0;
  }

  _begin(options) {
    if (!["idle", "over", "failed"].includes(this.phase)) throw new Error(`already ${this.phase}`);
    this._clear();
    this._options = options;
  }

  _clear() {
    this.ticket = null;
    this.assignment = null;
    /** @type {import("./index.js").Welcome | null} */
    this.welcome = null;
    /** @type {Record<string, any> | null} what the match ended with, once it has */
    this.results = null;
    this.seat = -1;
    this.tick = 0;
    this.snapshots = 0;
    this.shownTick = 0;
    /** @type {Link | null} */
    this._link = null;
    /** @type {Interpolation | null} */
    this._interpolation = null;
    /** @type {Prediction<any> | null} */
    this._prediction = null;
    this._inputAtMs = 0;
    this._intervalMs = 1000 / 30;
  }

  async _cancelled(ticket) {
    try {
      await this.matchmaking.cancelTicket(ticket);
    } catch (error) {
      if (!(error instanceof MatchmakingError)) throw error; // it will time out by itself
    }
    return this._over("over", { code: 0, name: "cancelled", reason: "left the queue" });
  }

  _follow(assignment) {
    this.assignment = assignment;
    this._enter("connecting", "");
    return new Promise((resolve) => {
      this._link = new Link({
        assignment,
        seat: (session) => this.matchmaking.seat(session),
        secure: this._secure,
        clock: this._clock,
        network: this._network,
        WebSocket: this._WebSocket,
        handler: {
          connected: (connection, place) => this._connected(connection, place),
          snapshot: (snapshot) => this._snapshot(snapshot),
          event: (event) => this._event(event),
          moving: (why) => this._tell("moving", why),
          lost: (end) => this._enter(this.welcome === null ? "connecting" : "reconnecting", end.reason),
          over: (end) => resolve(this._over(end.code === 0 ? "over" : "failed", end)),
        },
      });
    });
  }

  _connected(connection, place) {
    const { tickRateHz, seat } = connection.welcome;
    this.welcome = connection.welcome;
    this.assignment = place;
    this.seat = seat;
    this._intervalMs = 1000 / tickRateHz;
    this._inputAtMs = this._clock.now();
    this._interpolation = new Interpolation({ tickRateHz, ...this._options?.interpolate });
    const predict = this._options?.predict;
    if (predict !== undefined) {
      if (this._prediction === null) this._prediction = new Prediction({ ...predict, dtS: 1 / tickRateHz });
      else this._prediction.reset();
    }
    this._tell("welcome", this.welcome);
    this._enter("playing", "");
  }

  _snapshot(snapshot) {
    const now = this._clock.now();
    this.tick = snapshot.tick;
    this.snapshots += 1;
    this._interpolation?.push(snapshot.tick, snapshot.world, now);
    const table = this._options?.predict?.table;
    const own = table === undefined ? undefined : snapshot.world.rows(table).get(this.seat);
    if (own !== undefined) this._prediction?.reconcile(own, snapshot.ackInput, now);
    this._tell("snapshot", snapshot);
  }

  _event(event) {
    if (event.data.name === "results") this.results = event.data.results ?? {};
    this._tell("event", event);
  }

  _over(phase, end) {
    this._enter(phase, end.reason);
    return end;
  }

  _enter(phase, why) {
    this.phase = phase;
    this._tell("phase", phase, why);
  }

  _tell(name, ...told) {
    for (const listener of this._listeners.get(name) ?? []) listener(...told);
  }
}
