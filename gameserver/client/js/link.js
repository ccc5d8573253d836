/**
 * A player's way to its match, across connections: reconnects, follows the session to other servers, and says when the match is over.
 *
 * When the session moves, the new connection is made while the old one goes on, and takes over with its first snapshot: what is shown has no
 * gap. When a connection is lost, or has been silent for longer than any network is, the matchmaker is asked where the session is now, until
 * it answers that it has ended, or patience is at its end; a connection that is being made meanwhile does not hold the asking up.
 */

import { Connection, browserClock } from "./connection.js";
import { CloseCode } from "./protocol.js";

/** A server keeps a lost player's seat for 30 s. */
const PATIENCE_MS = 30_000;
/** Silence after which the matchmaker is asked, though the connection may only be slow. */
const SUSPECT_MS = 500;
/** Silence after which a new connection is made, though the session has not moved: this one's path is broken. */
const REDIAL_MS = 2000;
/** Between questions: doubled up to the longest, which is less in the first seconds, when most lost matches are found again. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;
const HURRIED_PAUSE_MS = 400;
const HURRY_MS = 8000;
/** A first connection is given so long before anybody is asked anything. */
const FIRST_ASK_MS = 1000;
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
   * @param {boolean} [options.secure] wss where the assignment does not say; else as it says
   * @param {import("./index.js").Clock} [options.clock]
   * @param {() => number} [options.random] 0 to 1, spreads reconnects
   * @param {import("./netsim.js").NetSim | null} [options.network]
   * @param {boolean} [options.spectator]
   * @param {typeof globalThis.WebSocket} [options.WebSocket]
   */
  constructor({ assignment, seat, handler, secure = false, clock = browserClock(), random = Math.random, network = null, spectator = false, WebSocket }) {
    this._seat = seat;
    this._handler = handler;
    this._secure = secure;
    this._clock = clock;
    this._random = random;
    this._connecting = { clock, network, spectator, ...(WebSocket === undefined ? {} : { WebSocket }) };
    this._session = assignment.session;
    /** @type {Connection | null} the one whose snapshots count */
    this.connection = null;
    /** @type {Connection | null} the one that is to take over */
    this._next = null;
    this._moving = false;
    this._asking = false;
    /** @type {number | null} since when it has not been well; null while it is */
    this._troubleSinceMs = clock.now();
    this._askAtMs = clock.now() + FIRST_ASK_MS;
    this._pauseMs = FIRST_PAUSE_MS;
    this._told = false; // whether `lost` has been told, and nothing has taken over since
    this.assignment = assignment;
    this.over = false;
    this.reconnects = 0;
    this._connect(assignment);
    this._tend();
  }

  /** Give the seat up. */
  leave() {
    if (this.connection !== null && !this.connection.ended) this.connection.leave();
    this._finish({ code: CloseCode.NORMAL, name: "normal", reason: "left" });
  }

  _connect(assignment) {
    this._next?.close();
    this._heading = assignment;
    const { host, ports, token, secure = this._secure } = assignment;
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
      const url = `${secure === true ? "wss" : "ws"}://${name}:${ports.websocket}/`;
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
    this._moving = this._told = false;
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
    this._moving = true;
    this._trouble();
    if (data.assignment !== undefined) this._connect({ ...this.assignment, ...data.assignment });
    else {
      this._askAtMs = this._clock.now();
      this._tend();
    }
  }

  _ended(end, connection) {
    if (this.over || (connection !== this.connection && connection !== this._next)) return;
    if (connection === this._next) this._next = null;
    else if ((this._moving || this._next !== null) && end.code !== CloseCode.KICKED && end.code !== CloseCode.GAME_ERROR) return; // the old one may go
    if (FINAL.has(end.code)) {
      this._finish(end);
      return;
    }
    this._lastEnd = end;
    this._trouble();
    this._askAtMs = Math.min(this._askAtMs, this._clock.now() + this._pause());
    if (!this._told && !this._alive()) {
      this._told = true;
      this._handler.lost(end);
    }
    this._tend();
  }

  /** Ask when it is time to, and come back when it may be. */
  _tend() {
    if (this.over) return;
    this._clock.clearTimeout(this._timer);
    const now = this._clock.now();
    const silentMs = this._silentMs(now);
    let waitMs = SUSPECT_MS;
    if (this.connection?.results) {
      // It ended, and its last word was lost.
      if (silentMs > REDIAL_MS) return this._finish({ code: CloseCode.NORMAL, name: "normal", reason: "the match is over" });
    } else if (!this._moving && silentMs < SUSPECT_MS) {
      this._troubleSinceMs = null;
      this._pauseMs = FIRST_PAUSE_MS;
      waitMs = SUSPECT_MS - silentMs;
    } else {
      this._trouble();
      if (now - this._troubleSinceMs > PATIENCE_MS) {
        if (silentMs >= SUSPECT_MS) {
          return this._finish(this._lastEnd ?? { code: CloseCode.TIMEOUT, name: "timeout", reason: "the match was not found again" });
        }
        this._moving = false; // nobody knows of a new place: stay at the old one
      }
      if (!this._asking && now >= this._askAtMs) this._ask();
      if (!this._asking) waitMs = Math.max(5, this._askAtMs - now);
    }
    this._timer = this._clock.setTimeout(() => this._tend(), waitMs);
  }

  async _ask() {
    this._asking = true;
    try {
      this._answered(await this._seat(this._session));
    } catch (error) {
      if (this.over) return;
      this._askAtMs = this._clock.now() + Math.max(this._pause(), error.retryAfterMs ?? 0);
      if (error.status === 410) this._finish({ code: CloseCode.NORMAL, name: "normal", reason: "the match is over" });
      else if (error.status === 404 || error.status === 403) {
        this._finish({ code: CloseCode.UNAUTHORIZED, name: "unauthorized", reason: error.message });
      }
    } finally {
      this._asking = false;
    }
    this._tend();
  }

  _answered(assignment) {
    if (this.over) return;
    const now = this._clock.now();
    this._askAtMs = now + this._pause();
    const heading = this._next !== null ? this._heading : this.assignment;
    const newer = assignment.epoch > heading.epoch;
    const broken = this._next === null && !this._moving && this._silentMs(now) > REDIAL_MS;
    const gone = this._next === null && !this._alive();
    if (newer || broken || gone) this._connect(assignment);
  }

  /** How long the connection that counts has said nothing; for ever when there is none. */
  _silentMs(now) {
    return this._alive() ? now - this.connection.seenAtMs : Infinity;
  }

  _trouble() {
    this._troubleSinceMs ??= this._askAtMs = this._clock.now();
  }

  /** The time until the next question; they are spread, so that those who lost one server do not ask as one. */
  _pause() {
    const pauseMs = this._pauseMs * (0.5 + this._random());
    const hurry = this._troubleSinceMs === null || this._clock.now() - this._troubleSinceMs < HURRY_MS;
    this._pauseMs = Math.min(2 * this._pauseMs, hurry ? HURRIED_PAUSE_MS : LONGEST_PAUSE_MS);
    return pauseMs;
  }

  _alive() {
    return this.connection !== null && !this.connection.ended;
  }

  _finish(end) {
    if (this.over) return;
    this.over = true;
    this._clock.clearTimeout(this._timer);
    this._next?.close();
    this.connection?.close();
    this._handler.over(end);
  }
}
