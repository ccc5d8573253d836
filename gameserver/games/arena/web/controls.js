/**
 * What the player does: keyboard and mouse, or two thumbs. Owns no rules; `sample` gives one input.
 *
 * Touch: a thumb on the left half is a stick that moves; one on the right half is a stick that aims, and fires while it is pushed.
 */

const KEYS = {
  KeyW: [0, -1], ArrowUp: [0, -1], KeyS: [0, 1], ArrowDown: [0, 1],
  KeyA: [-1, 0], ArrowLeft: [-1, 0], KeyD: [1, 0], ArrowRight: [1, 0],
};
/** Pixels from a stick's middle to its rim. */
export const STICK = 56;
const DEAD_ZONE = 0.15;

export class Controls {
  /** @param {HTMLElement} surface what pointers act on */
  constructor(surface) {
    /** @type {Set<string>} */
    this._held = new Set();
    this._mouse = { x: 0, y: 0, seen: false, down: false };
    /** @type {Map<number, {side: "move" | "aim", x0: number, y0: number, x: number, y: number}>} */
    this.sticks = new Map();
    this._aim = 0;
    addEventListener("keydown", (event) => this._key(event, true));
    addEventListener("keyup", (event) => this._key(event, false));
    addEventListener("blur", () => this.release());
    surface.addEventListener("pointerdown", (event) => this._down(event));
    addEventListener("pointermove", (event) => this._move(event));
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, (event) => this._up(/** @type {PointerEvent} */ (event)));
    surface.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /** Let go of everything. */
  release() {
    this._held.clear();
    this.sticks.clear();
    this._mouse.down = false;
  }

  /**
   * One input.
   * @param {{x: number, y: number} | null} ship where the own ship is on the screen
   */
  sample(ship) {
    let [x, y] = [0, 0];
    for (const code of this._held) {
      x += KEYS[code]?.[0] ?? 0;
      y += KEYS[code]?.[1] ?? 0;
    }
    let fire = this._held.has("Space") || this._mouse.down;
    let aimed = false;
    for (const { side, x0, y0, x: at, y: down } of this.sticks.values()) {
      const [dx, dy] = [(at - x0) / STICK, (down - y0) / STICK];
      const push = Math.hypot(dx, dy);
      if (push < DEAD_ZONE) continue;
      if (side === "move") [x, y] = [dx / Math.max(1, push), dy / Math.max(1, push)];
      else {
        this._aim = Math.atan2(dy, dx);
        aimed = fire = true;
      }
    }
    if (this._mouse.seen && ship !== null) this._aim = Math.atan2(this._mouse.y - ship.y, this._mouse.x - ship.x);
    else if (!aimed && (x !== 0 || y !== 0)) this._aim = Math.atan2(y, x);
    return { move_x: clamp(x), move_y: clamp(y), aim: this._aim, fire };
  }

  _key(event, held) {
    if (event.target instanceof HTMLInputElement) return;
    if (!(event.code in KEYS) && event.code !== "Space") return;
    if (event.target === document.body) event.preventDefault(); // no scrolling; buttons keep their keys
    if (held) this._held.add(event.code);
    else this._held.delete(event.code);
  }

  _down(event) {
    if (event.pointerType !== "touch") {
      Object.assign(this._mouse, { x: event.clientX, y: event.clientY, seen: true, down: event.button === 0 });
      return;
    }
    this._mouse.seen = false;
    const side = event.clientX < innerWidth / 2 ? "move" : "aim";
    this.sticks.set(event.pointerId, { side, x0: event.clientX, y0: event.clientY, x: event.clientX, y: event.clientY });
  }

  _move(event) {
    const stick = this.sticks.get(event.pointerId);
    if (stick !== undefined) Object.assign(stick, { x: event.clientX, y: event.clientY });
    else if (event.pointerType !== "touch") Object.assign(this._mouse, { x: event.clientX, y: event.clientY, seen: true });
  }

  _up(event) {
    if (!this.sticks.delete(event.pointerId)) this._mouse.down = false;
  }
}

function clamp(value) {
  return Math.min(Math.max(value, -1), 1);
}
