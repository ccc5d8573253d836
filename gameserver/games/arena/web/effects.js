/** What is seen but is not so: sparks, rings, flashes and a shaking camera. Nothing here touches the game. */

const MOST = 400;

export class Effects {
  constructor() {
    this.clear();
    this.calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  }

  clear() {
    /** @type {{x: number, y: number, vx: number, vy: number, life: number, age: number, size: number, colour: string}[]} */
    this.sparks = [];
    /** @type {{x: number, y: number, age: number, life: number, size: number, colour: string}[]} what ships leave behind them */
    this.trails = [];
    /** @type {Map<number, {x: number, y: number}>} */
    this._trailed = new Map();
    /** @type {{x: number, y: number, age: number, life: number, reach: number, colour: string}[]} */
    this.rings = [];
    /** @type {Map<number, number>} seat to seconds of flash left */
    this.flashes = new Map();
    /** @type {Map<number, number>} seat to seconds of muzzle flash left */
    this.muzzles = new Map();
    this.shake = 0;
    /** How red the edges are, 0 to 1. */
    this.hurt = 0;
  }

  hit(seat, x, y, colour, mine) {
    this.flashes.set(seat, 0.16);
    this._burst(x, y, 8, 5, 0.3, 0.09, colour);
    if (mine) [this.shake, this.hurt] = [Math.max(this.shake, 0.18), Math.max(this.hurt, 0.2)];
  }

  kill(x, y, colour, mine) {
    this._burst(x, y, 34, 9, 0.7, 0.15, colour);
    this._burst(x, y, 14, 4, 0.9, 0.11, "#fff3d6");
    this.rings.push({ x, y, age: 0, life: 0.5, reach: 3, colour });
    this.shake = Math.max(this.shake, mine ? 0.55 : 0.15);
    if (mine) this.hurt = 0.5;
  }

  spawn(x, y, colour) {
    this.rings.push({ x, y, age: 0, life: 0.45, reach: 1.6, colour });
  }

  spent(x, y, colour) {
    this._burst(x, y, 4, 3, 0.18, 0.06, colour);
  }

  /** A ship was drawn here. */
  trail({ id, x, y, colour }) {
    const last = this._trailed.get(id);
    const way = last === undefined ? 0 : Math.hypot(x - last.x, y - last.y);
    if (way > 0.12 || last === undefined) this._trailed.set(id, { x, y });
    if (way <= 0.12 || way > 2 || this.trails.length >= MOST) return;
    this.trails.push({ x, y, age: 0, life: 0.45, size: 0.26, colour });
  }

  muzzle(seat) {
    this.muzzles.set(seat, 0.06);
  }

  /** @param {number} dtS */
  step(dtS) {
    for (const spark of this.sparks) {
      spark.age += dtS;
      const drag = Math.exp(-4 * dtS);
      spark.vx *= drag;
      spark.vy *= drag;
      spark.x += spark.vx * dtS;
      spark.y += spark.vy * dtS;
    }
    this.sparks = this.sparks.filter((spark) => spark.age < spark.life);
    for (const puff of this.trails) puff.age += dtS;
    this.trails = this.trails.filter((puff) => puff.age < puff.life);
    for (const ring of this.rings) ring.age += dtS;
    this.rings = this.rings.filter((ring) => ring.age < ring.life);
    for (const left of [this.flashes, this.muzzles]) {
      for (const [seat, seconds] of left) {
        if (seconds > dtS) left.set(seat, seconds - dtS);
        else left.delete(seat);
      }
    }
    this.hurt *= Math.exp(-4 * dtS);
    this.shake = this.calm ? 0 : this.shake * Math.exp(-7 * dtS);
  }

  _burst(x, y, count, speed, life, size, colour) {
    for (let k = 0; k < count; k++) {
      const [way, pace] = [Math.random() * 2 * Math.PI, speed * (0.3 + 0.7 * Math.random())];
      const spark = { x, y, vx: Math.cos(way) * pace, vy: Math.sin(way) * pace, age: 0, colour };
      this.sparks.push({ ...spark, life: life * (0.5 + 0.5 * Math.random()), size: size * (0.6 + 0.6 * Math.random()) });
    }
    if (this.sparks.length > MOST) this.sparks.splice(0, this.sparks.length - MOST);
  }
}
