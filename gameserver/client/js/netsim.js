/**
 * A worse network, simulated in the page: `?loss=5&delay=80&jitter=20&dup=1&seed=7` (per cent, ms, ms, per cent, each way).
 *
 * A WebSocket is a TCP connection: nothing is lost, doubled or overtaken. A lost segment is sent again after a timeout, and everything behind it
 * waits; that is what `loss` does here. The copy of a duplicated one is dropped by TCP: all it does is take its turn on the way. With a seed, the
 * same messages meet the same network.
 */

/** The least time until TCP sends a lost segment again (RFC 6298 with the 200 ms floor of common systems). */
const RETRANSMIT_MS = 200;
/** What a copy holds up those behind it by: a segment's time on a slow line. */
const COPY_MS = 1;

/**
 * Dice that fall alike for the same seed (mulberry32).
 * @param {number} seed
 * @returns {() => number} 0 to 1
 */
export function seededRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class NetSim {
  /**
   * @param {object} [conditions]
   * @param {number} [conditions.lossPercent] 0 to 100
   * @param {number} [conditions.delayMs] of each message
   * @param {number} [conditions.jitterMs] added to the delay, evenly from 0 to this
   * @param {number} [conditions.duplicatePercent] 0 to 100
   * @param {() => number} [conditions.random] 0 to 1
   * @param {import("./index.js").Clock} [conditions.clock]
   */
  constructor({ lossPercent = 0, delayMs = 0, jitterMs = 0, duplicatePercent = 0, random = Math.random, clock } = {}) {
    this._loss = lossPercent / 100;
    this._delayMs = delayMs;
    this._jitterMs = jitterMs;
    this._duplicates = duplicatePercent / 100;
    this._random = random;
    this._clock = clock ?? { now: () => performance.now(), setTimeout: (run, ms) => setTimeout(run, ms), clearTimeout };
  }

  /**
   * Read the conditions from a page's query; null where it asks for none.
   * @param {URLSearchParams} query
   */
  static fromQuery(query) {
    const number = (name, most) => {
      const value = Number(query.get(name));
      return Number.isFinite(value) ? Math.min(Math.max(value, 0), most) : 0;
    };
    const conditions = {
      lossPercent: number("loss", 90),
      delayMs: number("delay", 5000),
      jitterMs: number("jitter", 5000),
      duplicatePercent: number("dup", 100),
    };
    if (!Object.values(conditions).some((value) => value > 0)) return null;
    const random = query.has("seed") ? seededRandom(number("seed", 2 ** 32 - 1)) : Math.random;
    return new NetSim({ ...conditions, random });
  }

  /**
   * One direction of one connection: the returned function hands each message to `deliver` later, in order.
   * @template T
   * @param {(message: T) => void} deliver
   * @returns {(message: T) => void}
   */
  path(deliver) {
    let free = 0; // when the message before has arrived
    /** @type {T[]} */
    const underWay = []; // timers of nearly the same time may fire in any order: each delivers the oldest message
    return (message) => {
      const now = this._clock.now();
      let arrives = now + this._delayMs + this._jitterMs * this._random();
      // Each transmission may be lost anew, with the timeout doubled; four in a row are enough for a simulation.
      let timeout = Math.max(RETRANSMIT_MS, 2 * this._delayMs);
      for (let tries = 0; tries < 4 && this._random() < this._loss; tries++, timeout *= 2) arrives += timeout;
      free = Math.max(free, arrives);
      if (this._duplicates > 0 && this._random() < this._duplicates) free += COPY_MS;
      underWay.push(message);
      this._clock.setTimeout(() => deliver(/** @type {T} */ (underWay.shift())), free - now);
    };
  }
}
