/**
 * A player's way to its match, across connections: reconnects, follows the session to other servers, and says when the match is over.
 *
 * When the session moves, the new connection is made while the old one goes on, and takes over with its first snapshot. When a connection is
 * lost, the matchmaker is asked where the session is now, until it answers, or says that the session has ended, or patience is at its end.
 */

import { Connection, browserClock } from "./connection.js";
import { CloseCode } from "./protocol.js";

/** A server keeps a lost player's seat for 30 s. */
const PATIENCE_MS = 30_000;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;
/** After these there is nothing to come back to. */
const FINAL = new Set([
  CloseCode.NORMAL, CloseCode.MALFORMED, CloseCode.VERSION, CloseCode.SUPERSEDED, CloseCode.KICKED, CloseCode.GAME_ERROR,
]);

export class Link {
  /**
   * Connects at once.
   * @param {object} options
   * @param {import("./index.js").Assignment} options.assignment
   * @param {(session: string) => Promise<import("./index.js").Assignment>} options.seat asks where the session is now
   * @param {import("./index.js").LinkHandler} options.handler
   * @param {boolean} [options.secure] wss instead of ws
   * @param {import("./index.js").Clock} [options.clock]
   * @param {() => number} [options.random] 0 to 1, spreads reconnects
   * @param {import("./netsim.js").NetSim | null} [options.network]
   * @param {typeof globalThis.WebSocket} [options.WebSocket]
   */
  constructor({ assignment, seat, handler, secure = false, clock = browserClock(), random = Math.random, network = null, WebSocket }) {
    this._seat = seat;
    this._handler = handler;
    this._secure = secure;
    this._clock = clock;
    this._random = random;
    this._connecting = { clock, network, ...(WebSocket === undefined ? {} : { WebSocket }) };
    this._session = assignment.session;
    /** @type {Connection | null} the one whose snapshots count */
    this.connection = null;
    /** @type {Connection | null} the one that is to take over */
    this._next = null;
    this._lostAtMs = clock.now();
    this._pauseMs = FIRST_PAUSE_MS;
    this._asking = false;
    this.assignment = assignment;
    this.over = false;
    this.reconnects = 0;
    this._connect(assignment);
  }

  /** Give the seat up. */
  leave() {
    if (this.connection !== null && !this.connection.ended) this.connection.leave();
    this._finish({ code: CloseCode.NORMAL, name: "normal", reason: "left" });
  }

  _connect(assignment) {
    this._next?.close();
    const { host, ports, token } = assignment;
    if (typeof host !== "string" || typeof token !== "string" || !Number.isInteger(ports?.websocket)) {
      this._finish({ code: CloseCode.VERSION, name: "version", reason: "the server takes no WebSockets" });
      return;
    }
    /** @type {any[]} events of the next connection, told once it has taken over */
    this._early = [];
    const name = host.includes(":") ? `[${host}]` : host;
    const handler = {
      snapshot: (snapshot, connection) => this._snapshot(snapshot, connection, assignment),
      event: (event, connection) => this._event(event, connection),
      migrate: (data, connection) => this._migrate(data, connection),
      end: (end, connection) => this._ended(end, connection),
    };
    try {
      const url = `${this._secure ? "wss" : "ws"}://${name}:${ports.websocket}/`;
      this._next = new Connection({ ...this._connecting, url, token, handler });
    } catch (error) {
      // The browser refuses the address itself: a wrong one, or ws:// from a page over https.
      this._next = null;
      this._finish({ code: CloseCode.VERSION, name: "version", reason: error.message });
    }
  }

  _snapshot(snapshot, connection, assignment) {
    if (connection === this._next) this._takeOver(connection, assignment);
    if (connection === this.connection) this._handler.snapshot(snapshot, connection);
  }

  _takeOver(connection, assignment) {
    const old = this.connection;
    this.connection = connection;
    this._next = null;
    this._pauseMs = FIRST_PAUSE_MS;
    this.assignment = assignment;
    old?.close();
    if (old !== null) this.reconnects += 1;
    this._handler.connected(connection, assignment);
    for (const event of this._early) this._handler.event(event);
    this._early = [];
  }

  _event(event, connection) {
    if (connection === this.connection) this._handler.event(event);
    else if (connection === this._next) this._early.push(event);
  }

  _migrate(data, connection) {
    if (connection !== this.connection || this.over) return;
    this._handler.moving(String(data.reason ?? "the server asks for it"));
    this._lostAtMs = this._clock.now();
    if (data.assignment !== undefined) this._connect({ ...this.assignment, ...data.assignment });
    else this._ask();
  }

  _ended(end, connection) {
    if (this.over || (connection !== this.connection && connection !== this._next)) return;
    const moving = this._next !== null || this._asking;
    if (connection === this.connection) {
      // While a new connection is on its way, the old one may go.
      if (moving && end.code !== CloseCode.KICKED && end.code !== CloseCode.GAME_ERROR) {
        this._lostAtMs = this._clock.now();
        return;
      }
    } else {
      this._next = null;
    }
    if (FINAL.has(end.code)) {
      this._finish(end);
      return;
    }
    if (connection === this.connection) this._lostAtMs = this._clock.now();
    this._lastEnd = end;
    this._handler.lost(end);
    this._pauseThenAsk();
  }

  _pauseThenAsk() {
    if (this._asking) return;
    if (this._clock.now() - this._lostAtMs > PATIENCE_MS) {
      if (this._alive()) return; // nobody knows of a new place: stay at the old one
      this._finish(this._lastEnd ?? { code: CloseCode.TIMEOUT, name: "timeout", reason: "the match was not found again" });
      return;
    }
    this._asking = true;
    const pauseMs = this._pauseMs * (0.5 + this._random());
    this._pauseMs = Math.min(2 * this._pauseMs, LONGEST_PAUSE_MS);
    this._clock.setTimeout(() => {
      this._asking = false;
      this._ask();
    }, pauseMs);
  }

  async _ask() {
    if (this.over || this._asking) return;
    this._asking = true;
    let assignment;
    try {
      assignment = await this._seat(this._session);
    } catch (error) {
      this._asking = false;
      if (this.over) return;
      if (error.status === 410) this._finish({ code: CloseCode.NORMAL, name: "normal", reason: "the match is over" });
      else if (error.status === 404 || error.status === 403) {
        this._finish({ code: CloseCode.UNAUTHORIZED, name: "unauthorized", reason: error.message });
      } else this._pauseThenAsk();
      return;
    }
    this._asking = false;
    if (this.over) return;
    // Told to move before the move is done: the old place goes on meanwhile.
    if (this._alive() && assignment.epoch === this.assignment.epoch) this._pauseThenAsk();
    else this._connect(assignment);
  }

  _alive() {
    return this.connection !== null && !this.connection.ended;
  }

  _finish(end) {
    if (this.over) return;
    this.over = true;
    this._next?.close();
    this.connection?.close();
    this._handler.over(end);
  }
}
