/**
 * One WebSocket to a game server: Hello, Welcome, snapshots, events, inputs, pings; docs/protocol.md.
 *
 * Owns what a client must keep between messages: the worlds it may be sent deltas of, the numbers of inputs and events, the round trip and the
 * server's clock. Bytes that break the protocol end the connection, with an error that says why. A connection is used once; `link.js` makes
 * the next one.
 */

import * as wire from "./protocol.js";

const WELCOME_TIMEOUT_MS = 5000;
/** A server sends every tick: one that is silent for so long is gone. */
const SILENCE_TIMEOUT_MS = 4000;
const PING_INTERVAL_MS = 1000;
const WORLDS_KEPT = 64;
/** Pongs among which the one with the shortest round trip sets the clock. */
const CLOCK_SAMPLES = 8;
/** What two of them may disagree by, beyond what their round trips leave open: drift, and ticks that come late. */
const CLOCK_SLACK_MS = 50;
/** Between acknowledgements of a page that sends no inputs (it is hidden, or a spectator's): what it is sent stays small. */
const ACKNOWLEDGE_INTERVAL_MS = 100;
/** Unsent bytes above which inputs are dropped: the network stands still, and old inputs are worth nothing. */
const MAX_UNSENT_BYTES = 16384;

/** @returns {import("./index.js").Clock} */
export function browserClock() {
  return {
    now: () => performance.now(),
    setTimeout: (run, ms) => setTimeout(run, ms),
    clearTimeout: (timer) => clearTimeout(timer),
  };
}

/** The name of a close code, as docs/protocol.md has it. @param {number} code */
export function closeName(code) {
  const found = Object.entries(wire.CloseCode).find(([, value]) => value === code);
  return found === undefined ? `code ${code}` : found[0].toLowerCase();
}

export class Connection {
  /**
   * Connects at once.
   * @param {object} options
   * @param {string} options.url `ws://…` or `wss://…`
   * @param {string} options.token the seat token
   * @param {import("./index.js").ConnectionHandler} options.handler
   * @param {boolean} [options.spectator]
   * @param {import("./index.js").Clock} [options.clock]
   * @param {import("./netsim.js").NetSim | null} [options.network] a worse network, simulated
   * @param {typeof globalThis.WebSocket} [options.WebSocket]
   */
  constructor({ url, token, handler, spectator = false, clock = browserClock(), network = null, WebSocket = globalThis.WebSocket }) {
    this.url = url;
    this._handler = handler;
    this._clock = clock;
    /** @type {import("./index.js").Welcome | null} */
    this.welcome = null;
    /** @type {import("./world.js").World | null} the newest state */
    this.world = null;
    this.tick = 0;
    this.ackInput = 0;
    this.snapshots = 0;
    /** Round trip in ms, 0 before the first pong. */
    this.latencyMs = 0;
    this.ended = false;
    this._seq = 0;
    this._eventSeq = 0;
    /** @type {Map<number, import("./world.js").World>} */
    this._worlds = new Map();
    /** @type {{rttMs: number, tick: number, atMs: number}[]} */
    this._clockSamples = [];
    this._heardAtMs = clock.now();
    /** When the newest snapshot came. */
    this.seenAtMs = clock.now();
    /** @type {Record<string, any> | null} what the match ended with, once it has */
    this.results = null;
    /** @type {Uint8Array | null} the newest input's record */
    this._newest = null;
    this._view = 0;
    this._acknowledgedAtMs = -Infinity;
    this._pingedAtMs = -Infinity;
    this._timer = clock.setTimeout(() => this._end(wire.CloseCode.TIMEOUT, "the server does not answer"), WELCOME_TIMEOUT_MS);

    const receive = (data) => this._receive(data);
    const send = (data) => {
      if (typeof data === "function") data();
      else if (this._socket.readyState === WebSocket.OPEN) this._socket.send(data);
    };
    this._receiveLater = network === null ? receive : network.path(receive);
    this._send = network === null ? send : network.path(send);
    this._socket = new WebSocket(url, [wire.SUBPROTOCOL]);
    this._socket.binaryType = "arraybuffer";
    this._socket.onopen = () => this._send(wire.encodeHello(token, spectator));
    this._socket.onmessage = (event) => this._receiveLater(event.data);
    this._socket.onclose = (event) => {
      const ours = event.code >= 4000 && event.code < 4256;
      // What is still on its simulated way arrives before the end does.
      if (network === null) this._closed(ours, event);
      else this._receiveLater(/** @type {any} */ (() => this._closed(ours, event)));
    };
  }

  /**
   * Send one input; before Welcome there is nothing to send it to.
   * @param {Record<string, number | boolean>} values
   * @param {number} [viewTick] the tick, with its fraction, that the player saw
   * @returns {{seq: number, values: Record<string, any>}} its number, and the values as the server will read them
   */
  sendInput(values, viewTick = 0) {
    if (this._inputs === undefined) throw new Error("inputs are sent after Welcome");
    const record = this._inputs.encode(values);
    this._seq += 1;
    this._newest = record;
    this._sendNewest(viewTick);
    return { seq: this._seq, values: this._inputs.decode(record) };
  }

  _sendNewest(viewTick) {
    this._acknowledgedAtMs = this._clock.now();
    if (this._socket.bufferedAmount >= MAX_UNSENT_BYTES) return;
    const view = Math.max(0, Math.round(viewTick * 256)) >>> 0;
    this._view = viewTick;
    this._send(wire.encodeInput({ ackTick: this.tick, ackEvent: this._eventSeq, view, firstSeq: this._seq, records: [this._newest] }));
  }

  /** Acknowledge without a new input: the newest one again, which the server drops, or one that is none. */
  _acknowledge() {
    if (this._clock.now() - this._acknowledgedAtMs < ACKNOWLEDGE_INTERVAL_MS) return;
    this._sendNewest(this._view);
  }

  /** Give the seat up: the server need not wait for this player. */
  leave() {
    this._send(wire.encodeBye(wire.CloseCode.NORMAL, "left"));
    this._end(wire.CloseCode.NORMAL, "left");
  }

  /** Close without a word: the seat is kept. */
  close() {
    this._end(wire.CloseCode.NORMAL, "closed", true);
  }

  /**
   * The server's tick at `nowMs`, with its fraction, from the clock that pongs have set; the newest snapshot's before that.
   * @param {number} nowMs
   */
  serverTick(nowMs) {
    if (this.welcome === null || this._clockSamples.length === 0) return this.tick;
    const best = this._clockSamples.reduce((a, b) => (b.rttMs < a.rttMs ? b : a));
    return best.tick + ((nowMs - best.atMs) * this.welcome.tickRateHz) / 1000;
  }

  _closed(ours, event) {
    if (ours) this._end(event.code - 4000, event.reason || closeName(event.code - 4000));
    else this._end(wire.CloseCode.TIMEOUT, this.welcome === null ? "the server cannot be reached" : "the connection was lost");
  }

  _receive(data) {
    if (this.ended) return;
    if (typeof data === "function") return data();
    try {
      if (!(data instanceof ArrayBuffer)) throw new wire.ProtocolError("a text frame");
      this._heardAtMs = this._clock.now();
      this._handle(wire.decodeServer(new Uint8Array(data)));
    } catch (error) {
      if (!(error instanceof wire.ProtocolError)) throw error;
      this._send(wire.encodeBye(wire.CloseCode.MALFORMED, error.message.slice(0, 100)));
      this._end(wire.CloseCode.MALFORMED, `the server broke the protocol: ${error.message}`);
    }
  }

  _handle(message) {
    switch (message.type) {
      case "welcome":
        return this._welcomed(message);
      case "snapshot":
        return this._snapshot(message);
      case "event":
        // Over a WebSocket events come in order, each once.
        if (message.seq !== this._eventSeq + 1) throw new wire.ProtocolError(`event ${message.seq} after ${this._eventSeq}`);
        this._eventSeq = message.seq;
        if (message.data.name === "results") this.results = message.data.results ?? {};
        return this._handler.event?.(message, this);
      case "pong":
        return this._pong(message);
      case "migrate":
        return this._handler.migrate?.(message.data, this);
      case "bye":
        return this._end(message.code, message.reason || closeName(message.code));
    }
  }

  _welcomed(welcome) {
    if (this.welcome !== null) throw new wire.ProtocolError("welcomed twice");
    this._schema = new wire.Schema(welcome.room.schema);
    this._inputs = new wire.Fields(welcome.room.inputs);
    this.welcome = welcome;
    this._newest = this._inputs.encode({}); // numbered 0: never applied
    this._clock.clearTimeout(this._timer);
    this._keepAlive();
    this._handler.welcome?.(welcome, this);
  }

  _snapshot({ tick, baseline, ackInput, body }) {
    if (this._schema === undefined) throw new wire.ProtocolError("a snapshot before Welcome");
    if (this._worlds.has(tick)) return;
    const base = this._worlds.get(baseline);
    if (baseline !== 0 && base === undefined) throw new wire.ProtocolError(`baseline ${baseline} was not acknowledged`);
    const world = base === undefined ? wire.decodeFull(this._schema, body) : wire.applyDelta(base, body);
    this._worlds.set(tick, world);
    if (this._worlds.size > WORLDS_KEPT) this._worlds.delete(this._worlds.keys().next().value);
    this.snapshots += 1;
    this._ping();
    if (tick <= this.tick) return;
    [this.tick, this.world, this.ackInput] = [tick, world, ackInput];
    this.seenAtMs = this._clock.now();
    this._acknowledge();
    this._handler.snapshot?.({ tick, world, ackInput }, this);
  }

  _pong({ clientMs, serverTick }) {
    if (this.welcome === null) throw new wire.ProtocolError("a pong before Welcome");
    const now = this._clock.now();
    const rttMs = (Math.floor(now) - clientMs) >>> 0;
    if (rttMs > 60_000) {
      this._clockSamples = []; // the machine slept in between: whatever the clock was, it is not that any more
      return;
    }
    this.latencyMs = this.latencyMs === 0 ? rttMs : 0.7 * this.latencyMs + 0.3 * rttMs;
    // 24 bits of tick are on the wire; the rest is that of the newest snapshot.
    const sent = serverTick / 256;
    const tick = sent + 2 ** 24 * Math.round((this.tick - sent) / 2 ** 24);
    const sample = { rttMs, tick: tick + ((rttMs / 2) * this.welcome.tickRateHz) / 1000, atMs: now };
    // Two samples that cannot both be true: a clock was set, here or there, and the newer one is of after that.
    this._clockSamples = this._clockSamples.filter((old) => {
      const apartMs = ((sample.tick - old.tick) * 1000) / this.welcome.tickRateHz - (sample.atMs - old.atMs);
      return Math.abs(apartMs) <= (old.rttMs + sample.rttMs) / 2 + CLOCK_SLACK_MS;
    });
    this._clockSamples.push(sample);
    if (this._clockSamples.length > CLOCK_SAMPLES) this._clockSamples.shift();
  }

  _keepAlive() {
    if (this._clock.now() - this._heardAtMs > SILENCE_TIMEOUT_MS) {
      this._end(wire.CloseCode.TIMEOUT, "the server went silent");
      return;
    }
    this._ping();
    this._timer = this._clock.setTimeout(() => this._keepAlive(), PING_INTERVAL_MS);
  }

  /** Ping when it is due. Snapshots drive it too: browsers hold the timers of hidden pages back, but not their messages. */
  _ping() {
    const now = this._clock.now();
    if (Math.abs(now - this._pingedAtMs) < PING_INTERVAL_MS) return; // a clock that was set back puts nothing off
    this._pingedAtMs = now;
    this._send(wire.encodePing(Math.floor(now)));
  }

  _end(code, reason, quiet = false) {
    if (this.ended) return;
    this.ended = true;
    this._clock.clearTimeout(this._timer);
    // On the same way as the messages: what was sent before the end goes out first.
    this._send(() => this._socket.close(code === wire.CloseCode.MALFORMED ? 4000 + code : 1000));
    if (!quiet) this._handler.end?.({ code, name: closeName(code), reason }, this);
  }
}
