/**
 * Draws the arena on a canvas: field, walls, ships, bullets, effects, in the colours of the style sheet.
 *
 * Owns the camera: the whole field where there is room for it, else the surroundings of the own ship.
 */

import { STICK } from "./controls.js";

/** Pixels per unit below which the camera follows the ship instead of showing everything. */
const SMALLEST_SCALE = 20;
const TEAMS = { red: 0, blue: 1, green: 2, yellow: 3 };
/** In a larger crowd ships have neither names nor trails. */
const CROWD = 40;
const DARK = ["#ff6b6b", "#5aa9ff", "#5fe3a1", "#ffd166", "#c792ff", "#4fd9e8", "#ff9fd0", "#ffa05a"];
const LIGHT = ["#d92f3c", "#1f6fd6", "#12945a", "#b8860b", "#8a3fd1", "#0c8a9c", "#cf3d8b", "#cc5a0e"];

export class View {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this._canvas = canvas;
    this._pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { alpha: false }));
    this._light = matchMedia("(prefers-color-scheme: light)");
    this._light.addEventListener("change", () => this._dress());
    this._dress();
    /** @type {HTMLCanvasElement | null} the field, drawn once per size and theme */
    this._ground = null;
    this._groundFor = "";
    this._camera = { x: 0, y: 0, scale: 24 };
    /** @type {Map<number, {x: number, y: number, dx: number, dy: number}>} bullets of the frame before */
    this._bullets = new Map();
    /** @type {Map<string, HTMLCanvasElement>} */
    this._glows = new Map();
    this._time = 0;
  }

  /** A player's colour: its team's where teams are told apart by it, else its seat's. */
  colour(seat, team) {
    return (this._light.matches ? LIGHT : DARK)[(TEAMS[team] ?? seat) % DARK.length];
  }

  /** Where a place of the field is on the screen. */
  toScreen({ x, y }) {
    return { x: (x - this._camera.x) * this._camera.scale + innerWidth / 2, y: (y - this._camera.y) * this._camera.scale + this._middle() };
  }

  /**
   * Draw one frame.
   * @param {object} scene
   * @param {any} scene.map from the room's info; null draws the backdrop alone
   * @param {number} scene.radius
   * @param {number} scene.health a ship's full health
   * @param {{id: number, x: number, y: number, aim: number, health: number, alive: boolean, name: string, colour: string, mine: boolean}[]} scene.ships
   * @param {{id: number, x: number, y: number, colour: string}[]} scene.bullets
   * @param {import("./effects.js").Effects} scene.effects
   * @param {import("./controls.js").Controls} scene.controls
   * @param {number} dtS
   */
  draw(scene, dtS) {
    const pen = this._pen;
    this._time += dtS;
    this._fit();
    pen.setTransform(this._ratio, 0, 0, this._ratio, 0, 0);
    pen.fillStyle = this._style["--void"];
    pen.fillRect(0, 0, innerWidth, innerHeight);
    if (scene.map === null) {
      this._backdrop();
      return;
    }
    this._aimCamera(scene, dtS);
    const { scale } = this._camera;
    const origin = this.toScreen({ x: 0, y: 0 });
    const shake = scene.effects.shake * scale * 0.5;
    pen.translate(origin.x + (Math.random() - 0.5) * shake, origin.y + (Math.random() - 0.5) * shake);
    this._drawGround(scene.map, scale);
    pen.scale(scale, scale);
    if (scene.ships.length <= CROWD) for (const ship of scene.ships) if (ship.alive) scene.effects.trail(ship);
    this._drawRings(scene.effects);
    this._drawSparks(scene.effects.trails, 0.3);
    this._drawSight(scene.ships.find((ship) => ship.mine && ship.alive), scene.radius);
    this._drawBullets(scene.bullets, scene.effects);
    for (const ship of scene.ships) if (ship.alive) this._drawShip(ship, scene);
    this._drawSparks(scene.effects.sparks, 1);
    pen.setTransform(this._ratio, 0, 0, this._ratio, 0, 0);
    if (scene.ships.length <= CROWD) for (const ship of scene.ships) if (ship.alive && !ship.mine) this._drawName(ship, scene.radius);
    this._drawSticks(scene.controls);
    this._drawHurt(scene.effects.hurt);
  }

  _dress() {
    const style = getComputedStyle(document.documentElement);
    const names = ["--floor", "--void", "--dot", "--edge", "--wall", "--wall-top", "--shade", "--ink", "--dim", "--accent", "--good", "--alarm", "--me"];
    this._style = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(name).trim()]));
    this._groundFor = "";
    this._glows?.clear();
  }

  _fit() {
    this._ratio = Math.min(devicePixelRatio || 1, 2);
    const [width, height] = [Math.round(innerWidth * this._ratio), Math.round(innerHeight * this._ratio)];
    if (this._canvas.width !== width || this._canvas.height !== height) [this._canvas.width, this._canvas.height] = [width, height];
  }

  /** The middle of the room that the HUD leaves. */
  _middle() {
    return innerHeight / 2 + 12;
  }

  _aimCamera({ map, ships }, dtS) {
    const whole = Math.min((innerWidth - 24) / map.width, (innerHeight - 120) / map.height);
    const scale = Math.max(whole, SMALLEST_SCALE);
    const mine = ships.find((ship) => ship.mine);
    const wanted = (size, room, at) => (size * scale <= room ? size / 2 : clamp(at, room / 2 / scale - 1, size - room / 2 / scale + 1));
    const x = wanted(map.width, innerWidth, mine?.x ?? map.width / 2);
    const y = wanted(map.height, innerHeight - 120, mine?.y ?? map.height / 2);
    const pull = this._camera.scale === scale ? 1 - Math.exp(-12 * dtS) : 1;
    this._camera = { scale, x: this._camera.x + (x - this._camera.x) * pull, y: this._camera.y + (y - this._camera.y) * pull };
  }

  _drawGround(map, scale) {
    const key = `${map.name} ${map.width} ${map.height} ${scale} ${this._ratio} ${this._light.matches}`;
    if (key !== this._groundFor || this._ground === null) {
      this._ground = this._makeGround(map, scale);
      this._groundFor = key;
    }
    this._pen.drawImage(this._ground, -scale, -scale, (map.width + 2) * scale, (map.height + 2) * scale);
  }

  _makeGround(map, scale) {
    const ground = document.createElement("canvas");
    const unit = scale * this._ratio;
    ground.width = Math.ceil((map.width + 2) * unit);
    ground.height = Math.ceil((map.height + 2) * unit);
    const pen = /** @type {CanvasRenderingContext2D} */ (ground.getContext("2d"));
    pen.scale(unit, unit);
    pen.translate(1, 1);
    pen.shadowColor = this._style["--shade"];
    pen.shadowBlur = 0.8 * unit;
    pen.fillStyle = this._style["--floor"];
    box(pen, 0, 0, map.width, map.height, 0.5);
    pen.fill();
    pen.shadowBlur = 0;
    this._drawMarkings(pen, map);
    pen.fillStyle = this._style["--dot"];
    for (let x = 1; x < map.width; x++) {
      for (let y = 1; y < map.height; y++) {
        pen.beginPath();
        pen.arc(x, y, x % 4 === 0 && y % 4 === 0 ? 0.085 : 0.045, 0, 7);
        pen.fill();
      }
    }
    pen.strokeStyle = this._style["--edge"];
    pen.lineWidth = 0.09;
    box(pen, 0, 0, map.width, map.height, 0.5);
    pen.stroke();
    for (const [left, top, right, bottom] of map.walls) this._drawWall(pen, left, top, right - left, bottom - top, unit);
    return ground;
  }

  /** Light in the middle, and the lines of a court. */
  _drawMarkings(pen, { width, height }) {
    pen.save();
    box(pen, 0, 0, width, height, 0.5);
    pen.clip();
    const light = pen.createRadialGradient(width / 2, height / 2, 0, width / 2, height / 2, width * 0.6);
    light.addColorStop(0, this._style["--dot"]);
    light.addColorStop(1, this._style["--floor"]);
    pen.globalAlpha = 0.55;
    pen.fillStyle = light;
    pen.fillRect(0, 0, width, height);
    pen.globalAlpha = 0.5;
    pen.strokeStyle = this._style["--edge"];
    pen.lineWidth = 0.06;
    pen.beginPath();
    pen.arc(width / 2, height / 2, Math.min(width, height) * 0.34, 0, 7);
    pen.moveTo(width / 2, 0);
    pen.lineTo(width / 2, height);
    pen.stroke();
    pen.restore();
  }

  _drawWall(pen, x, y, width, height, unit) {
    pen.save();
    pen.shadowColor = this._style["--shade"];
    pen.shadowBlur = 0.5 * unit;
    pen.shadowOffsetY = 0.25 * unit;
    pen.fillStyle = this._style["--wall"];
    box(pen, x, y, width, height, 0.22);
    pen.fill();
    pen.restore();
    pen.fillStyle = this._style["--wall-top"];
    box(pen, x + 0.08, y + 0.06, width - 0.16, height - 0.28, 0.17);
    pen.fill();
  }

  _drawShip(ship, { radius, health, effects }) {
    const pen = this._pen;
    pen.save();
    pen.translate(ship.x, ship.y);
    this._glow(ship.colour, 0, 0, radius * 3.4, 0.4);
    if (ship.mine) {
      // The own ship is found at a glance: a halo that breathes.
      pen.globalAlpha = 0.12 + 0.05 * Math.sin(this._time * 4);
      pen.fillStyle = this._style["--me"];
      disc(pen, radius * 1.65);
      pen.globalAlpha = 1;
    }
    pen.lineWidth = 0.09;
    pen.lineCap = "round";
    pen.strokeStyle = ship.colour;
    pen.globalAlpha = 0.25;
    pen.beginPath();
    pen.arc(0, 0, radius * 1.2, 0, 7);
    pen.stroke();
    pen.globalAlpha = 1;
    const share = clamp(ship.health / health, 0, 1);
    pen.strokeStyle = share > 0.35 ? ship.colour : this._style["--alarm"];
    pen.beginPath();
    pen.arc(0, 0, radius * 1.2, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * share);
    pen.stroke();
    pen.rotate(ship.aim);
    if (effects.muzzles.has(ship.id)) {
      this._glow("#ffd98a", radius * 1.5, 0, 1.1, 0.8);
      pen.fillStyle = "#fff1c9";
      pen.beginPath();
      pen.moveTo(radius * 0.9, -0.16);
      pen.lineTo(radius * 2.3, 0);
      pen.lineTo(radius * 0.9, 0.16);
      pen.fill();
    }
    const flash = effects.flashes.get(ship.id) ?? 0;
    pen.fillStyle = flash > 0 ? "#ffffff" : ship.colour;
    pen.strokeStyle = ship.mine ? this._style["--me"] : this._style["--shade"];
    pen.lineWidth = ship.mine ? 0.1 : 0.06;
    pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(radius * 0.95, 0);
    pen.lineTo(-radius * 0.68, radius * 0.7);
    pen.lineTo(-radius * 0.38, 0);
    pen.lineTo(-radius * 0.68, -radius * 0.7);
    pen.closePath();
    pen.fill();
    pen.stroke();
    pen.restore();
  }

  _drawName(ship, radius) {
    const pen = this._pen;
    const { x, y } = this.toScreen({ x: ship.x, y: ship.y - radius * 1.5 });
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.lineWidth = 3;
    pen.lineJoin = "round";
    pen.strokeStyle = this._style["--floor"];
    pen.strokeText(ship.name, x, y - 5);
    pen.fillStyle = this._style["--ink"];
    pen.fillText(ship.name, x, y - 5);
  }

  /** A bullet is a streak along its way; one that has gone leaves a spark. */
  _drawBullets(bullets, effects) {
    const pen = this._pen;
    const before = this._bullets;
    this._bullets = new Map();
    pen.lineCap = "round";
    for (const { id, x, y, colour } of bullets) {
      const last = before.get(id);
      const way = last === undefined ? 0 : Math.hypot(x - last.x, y - last.y);
      const fresh = last === undefined || way > 4; // the number was used again
      const [dx, dy] = fresh ? [0, 0] : way > 0.01 ? [(x - last.x) / way, (y - last.y) / way] : [last.dx, last.dy];
      this._bullets.set(id, { x, y, dx, dy, colour });
      before.delete(id);
      this._glow(colour, x, y, 0.8, 0.6);
      for (const [length, width, alpha] of [[1.1, 0.26, 0.22], [0.65, 0.14, 1]]) {
        pen.globalAlpha = alpha;
        pen.strokeStyle = colour;
        pen.lineWidth = width;
        pen.beginPath();
        pen.moveTo(x, y);
        pen.lineTo(x - dx * length, y - dy * length);
        pen.stroke();
      }
    }
    pen.globalAlpha = 1;
    for (const gone of before.values()) effects.spent(gone.x, gone.y, gone.colour);
  }

  _drawRings({ rings }) {
    const pen = this._pen;
    for (const { x, y, age, life, reach, colour } of rings) {
      const share = age / life;
      pen.globalAlpha = (1 - share) * 0.7;
      pen.strokeStyle = colour;
      pen.lineWidth = 0.22 * (1 - share) + 0.02;
      pen.beginPath();
      pen.arc(x, y, reach * (1 - (1 - share) ** 3), 0, 7);
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  _drawSparks(sparks, alpha) {
    const pen = this._pen;
    for (const { x, y, age, life, size, colour } of sparks) {
      pen.globalAlpha = (1 - age / life) * alpha;
      pen.fillStyle = colour;
      pen.beginPath();
      pen.arc(x, y, size, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  /** Where the own gun points. */
  _drawSight(ship, radius) {
    if (ship === undefined) return;
    const pen = this._pen;
    pen.fillStyle = this._style["--me"];
    for (let k = 0; k < 9; k++) {
      const away = radius * 2.2 + k * 0.55;
      pen.globalAlpha = 0.32 * (1 - k / 9);
      pen.beginPath();
      pen.arc(ship.x + Math.cos(ship.aim) * away, ship.y + Math.sin(ship.aim) * away, 0.055, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  /** A soft light; drawn once per colour, for blurs are slow. */
  _glow(colour, x, y, reach, alpha) {
    let glow = this._glows.get(colour);
    if (glow === undefined) {
      glow = document.createElement("canvas");
      glow.width = glow.height = 64;
      const pen = /** @type {CanvasRenderingContext2D} */ (glow.getContext("2d"));
      const light = pen.createRadialGradient(32, 32, 0, 32, 32, 32);
      light.addColorStop(0, colour);
      light.addColorStop(1, `${colour}00`);
      pen.fillStyle = light;
      pen.fillRect(0, 0, 64, 64);
      this._glows.set(colour, glow);
    }
    const pen = this._pen;
    pen.globalAlpha = this._light.matches ? alpha * 0.6 : alpha;
    pen.drawImage(glow, x - reach, y - reach, reach * 2, reach * 2);
    pen.globalAlpha = 1;
  }

  /** Red edges when the own ship is hit. */
  _drawHurt(share) {
    if (share < 0.01) return;
    const pen = this._pen;
    const [x, y] = [innerWidth / 2, innerHeight / 2];
    const edge = pen.createRadialGradient(x, y, Math.min(x, y) * 0.8, x, y, Math.hypot(x, y));
    edge.addColorStop(0, "rgb(255 60 70 / 0)");
    edge.addColorStop(1, "rgb(255 60 70 / 1)");
    pen.globalAlpha = share;
    pen.fillStyle = edge;
    pen.fillRect(0, 0, innerWidth, innerHeight);
    pen.globalAlpha = 1;
  }

  _drawSticks(controls) {
    const pen = this._pen;
    for (const { x0, y0, x, y } of controls.sticks.values()) {
      const push = Math.min(1, STICK / (Math.hypot(x - x0, y - y0) || 1));
      pen.strokeStyle = pen.fillStyle = this._style["--dim"];
      pen.globalAlpha = 0.5;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(x0, y0, STICK, 0, 7);
      pen.stroke();
      pen.beginPath();
      pen.arc(x0 + (x - x0) * push, y0 + (y - y0) * push, 22, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  /** Behind the menu: dots, and ships that drift past. */
  _backdrop() {
    const pen = this._pen;
    const gap = 34;
    const drift = (this._time * 6) % gap;
    pen.fillStyle = this._style["--dot"];
    for (let x = -gap + drift; x < innerWidth + gap; x += gap) {
      for (let y = -gap + drift / 2; y < innerHeight + gap; y += gap) pen.fillRect(x, y, 2, 2);
    }
    for (let k = 0; k < 9; k++) {
      const speed = 26 + 9 * ((k * 7) % 5);
      const x = ((k * 397 + this._time * speed) % (innerWidth + 160)) - 80;
      const y = ((k * 211) % innerHeight) + 30 * Math.sin(this._time * 0.4 + k * 2);
      pen.save();
      pen.translate(x, y);
      pen.rotate(Math.cos(this._time * 0.4 + k * 2) * 0.35);
      pen.scale(15 + (k % 3) * 7, 15 + (k % 3) * 7);
      pen.globalAlpha = 0.55;
      pen.fillStyle = this.colour(k, "");
      pen.beginPath();
      pen.moveTo(1, 0);
      pen.lineTo(-0.75, 0.75);
      pen.lineTo(-0.38, 0);
      pen.lineTo(-0.75, -0.75);
      pen.fill();
      pen.restore();
    }
    pen.globalAlpha = 1;
  }
}

function box(pen, x, y, width, height, corner) {
  pen.beginPath();
  pen.roundRect(x, y, width, height, corner);
}

function disc(pen, radius) {
  pen.beginPath();
  pen.arc(0, 0, radius, 0, 7);
  pen.fill();
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
