/**
 * Interpolation of what others control: the world is shown a little in the past, between two snapshots that are there.
 *
 * How far in the past follows from the jitter that was measured: the buffer holds what nearly all snapshots were late by, and no more. The shown
 * time runs evenly and bends towards its target slowly, so that a late snapshot never shows as a jerk. Pure: times are arguments.
 */

/** Snapshots whose lateness is remembered; about 3 s at 30 Hz. */
const WINDOW = 90;
/** The share of snapshots that must be there in time. */
const IN_TIME = 0.95;
/** The shown time runs up to this much faster or slower while it approaches its target. */
const MAX_BEND = 0.1;
/** Further than this off its target, the shown time jumps there. */
const JUMP_MS = 500;
const MAX_DELAY_MS = 500;
/** Neighbouring snapshots whose lateness differs by more were timed by a clock that was set in between, or a path that stood still. */
const CLOCK_SET_MS = 1000;

export class Interpolation {
  /**
   * @param {object} options
   * @param {number} options.tickRateHz
   * @param {string[]} [options.angles] float fields that are angles in radians: they turn the short way
   * @param {number} [options.teleport] a float field that changes by more between two snapshots jumps (a respawn)
   */
  constructor({ tickRateHz, angles = [], teleport = Infinity }) {
    this._intervalMs = 1000 / tickRateHz;
    this._angles = new Set(angles);
    this._teleport = teleport;
    this.reset();
  }

  /** Begin anew: a new connection, whose ticks may lie earlier. */
  reset() {
    /** @type {{tick: number, world: import("./world.js").World}[]} by tick */
    this._worlds = [];
    /** @type {number[]} arrival less the tick's own time, of the recent snapshots */
    this._transits = [];
    this._shownTick = 0;
    this._shownAtMs = 0;
    /** How far in the past the world is shown. */
    this.delayMs = this._intervalMs;
    /** How unevenly snapshots arrive: the lateness that `IN_TIME` of them stay below. */
    this.jitterMs = 0;
  }

  /**
   * Take a snapshot's world.
   * @param {number} tick
   * @param {import("./world.js").World} world
   * @param {number} nowMs
   */
  push(tick, world, nowMs) {
    const newest = this._worlds.at(-1);
    if (newest !== undefined && tick <= newest.tick) return;
    this._worlds.push({ tick, world });
    if (this._worlds.length > WINDOW) this._worlds.shift(); // nobody looks: the page is in the background
    const transit = nowMs - tick * this._intervalMs;
    if (Math.abs(transit - (this._transits.at(-1) ?? transit)) > CLOCK_SET_MS) this._transits = [];
    this._transits.push(transit);
    if (this._transits.length > WINDOW) this._transits.shift();
    const sorted = [...this._transits].sort((a, b) => a - b);
    this.jitterMs = sorted[Math.ceil(sorted.length * IN_TIME) - 1] - sorted[0];
    this.delayMs = Math.min(this._intervalMs + this.jitterMs, MAX_DELAY_MS);
    this._fastest = sorted[0];
  }

  /**
   * Move the shown time on to `nowMs` and return it, as a tick with its fraction; 0 before the first snapshot.
   * @param {number} nowMs
   */
  advance(nowMs) {
    if (this._worlds.length === 0) return 0;
    const target = (nowMs - this._fastest - this.delayMs) / this._intervalMs;
    const elapsed = (nowMs - this._shownAtMs) / this._intervalMs;
    const off = target - (this._shownTick + elapsed);
    if (this._shownAtMs === 0 || elapsed < 0 || Math.abs(off) * this._intervalMs > JUMP_MS) this._shownTick = target;
    else this._shownTick += elapsed + Math.max(-MAX_BEND * elapsed, Math.min(MAX_BEND * elapsed, off));
    this._shownAtMs = nowMs;
    while (this._worlds.length > 2 && this._worlds[1].tick <= this._shownTick) this._worlds.shift();
    return this._shownTick;
  }

  /**
   * One table at the shown time (`advance`): a Map from id to a row, its float fields between two snapshots, the others as of the earlier.
   * @param {string} table
   * @returns {Map<number, any>}
   */
  rows(table) {
    const [older, newer] = this._worlds;
    if (older === undefined) return new Map();
    const before = older.world.rows(table);
    if (newer === undefined || this._shownTick <= older.tick) return before;
    const fraction = Math.min(1, (this._shownTick - older.tick) / (newer.tick - older.tick));
    const after = newer.world.rows(table);
    if (fraction === 1) return after;
    const fields = newer.world.schema.tables[newer.world.schema.names.indexOf(table)].list;
    const shown = new Map();
    for (const [id, row] of before) {
      const next = after.get(id);
      shown.set(id, next === undefined ? row : this._between(row, next, fraction, fields));
    }
    return shown;
  }

  _between(row, next, fraction, fields) {
    const floats = fields.filter((field) => field.kind === "float" || field.kind === "f32");
    if (floats.some((field) => !this._angles.has(field.name) && Math.abs(next[field.name] - row[field.name]) > this._teleport)) {
      return next;
    }
    const shown = Object.assign(Object.create(null), row);
    for (const { name } of floats) {
      const by = this._angles.has(name) ? turn(next[name] - row[name]) : next[name] - row[name];
      shown[name] = this._angles.has(name) ? turn(row[name] + by * fraction) : row[name] + by * fraction;
    }
    return shown;
  }
}

/**
 * An angle's equal from −π to π.
 * @param {number} angle
 */
export function turn(angle) {
  return angle - 2 * Math.PI * Math.round(angle / (2 * Math.PI));
}
