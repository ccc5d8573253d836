/**
 * Prediction and reconciliation of what the player controls.
 *
 * Every input is applied at once to a local state, with the game's own rules; when a snapshot says which inputs the server has applied, the
 * server's state is taken and the inputs after it are applied again. What that changes is not shown as a jump: the shown state carries the
 * difference as an offset that fades. Pure: times are arguments.
 */

/** Half of an error is gone after this long. */
const HALF_LIFE_MS = 60;
/** Inputs kept for reapplication: what a player does in two seconds at 60 Hz. */
const MAX_PENDING = 128;

/**
 * @template {Record<string, any>} S
 */
export class Prediction {
  /**
   * @param {object} rules
   * @param {(state: S, input: Record<string, any>, dtS: number) => S} rules.apply the game's step for one input; pure
   * @param {number} rules.dtS seconds of one input: 1 / tick rate
   * @param {string[]} rules.smooth numeric fields whose corrections are smoothed (positions)
   * @param {number} rules.snap corrections larger than this are shown at once (a respawn)
   */
  constructor({ apply, dtS, smooth, snap }) {
    this._apply = apply;
    this._dtS = dtS;
    this._smooth = smooth;
    this._snap = snap;
    /** @type {{seq: number, input: Record<string, any>}[]} */
    this._pending = [];
    /** @type {S | null} */
    this._before = null;
    /** @type {S | null} the state after every input so far; null until the first `reconcile` */
    this.state = null;
    this._offset = Object.fromEntries(smooth.map((field) => [field, 0]));
    this._offsetAtMs = 0;
    /** The size of the last correction, for a readout and for tests. */
    this.lastCorrection = 0;
  }

  /** Inputs that the server has not applied yet. */
  get pending() {
    return this._pending.length;
  }

  /**
   * Apply a new input at once.
   * @param {number} seq
   * @param {Record<string, any>} input the values as the server will read them (`Fields.decode`)
   */
  push(seq, input) {
    this._pending.push({ seq, input });
    if (this._pending.length > MAX_PENDING) this._pending.shift();
    if (this.state === null) return;
    this._before = this.state;
    this.state = this._apply(this.state, input, this._dtS);
  }

  /**
   * Take the server's state, which contains the inputs up to `ackInput`, and apply the later ones again.
   * @param {S} state
   * @param {number} ackInput
   * @param {number} nowMs
   */
  reconcile(state, ackInput, nowMs) {
    const shown = this.state;
    while (this._pending.length > 0 && this._pending[0].seq <= ackInput) this._pending.shift();
    this._before = state;
    this.state = state;
    for (const { input } of this._pending) {
      this._before = this.state;
      this.state = this._apply(this.state, input, this._dtS);
    }
    if (shown === null) return;
    this._fade(nowMs);
    const change = this._smooth.map((field) => shown[field] - this.state[field]);
    this.lastCorrection = Math.hypot(...change);
    this._smooth.forEach((field, k) => {
      this._offset[field] = this.lastCorrection > this._snap ? 0 : this._offset[field] + change[k];
    });
    if (this.lastCorrection > this._snap) this._before = this.state;
  }

  /** A new connection numbers its inputs anew: those on the way are lost. */
  reset() {
    this._pending = [];
  }

  /**
   * The state to show.
   * @param {number} nowMs
   * @param {number} [fraction] how far the time is from the newest input to the next, 0 to 1; shows the way there
   * @returns {S | null}
   */
  view(nowMs, fraction = 1) {
    if (this.state === null || this._before === null) return null;
    this._fade(nowMs);
    /** @type {Record<string, any>} */
    const shown = { ...this.state };
    for (const field of this._smooth) {
      shown[field] = this._before[field] + (this.state[field] - this._before[field]) * fraction + this._offset[field];
    }
    return /** @type {S} */ (shown);
  }

  _fade(nowMs) {
    const kept = 2 ** (-Math.max(0, nowMs - this._offsetAtMs) / HALF_LIFE_MS);
    for (const field of this._smooth) this._offset[field] *= kept;
    this._offsetAtMs = nowMs;
  }
}
