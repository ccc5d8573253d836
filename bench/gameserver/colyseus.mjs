// Workload A on Colyseus, as its documentation writes a room: Schema state with the narrowest fitting types, messages, a simulation interval.
// The rules are those of swarm.py. Usage: node colyseus.mjs; prints "ready PORT VERSION".
import http from "node:http";
import { createRequire } from "node:module";
import { MapSchema, Schema, defineTypes } from "@colyseus/schema";
import { Room, Server } from "@colyseus/core";
import { WebSocketTransport } from "@colyseus/ws-transport";

const WORLD = 65535 / 64;
const SPEED = 15.0 / 127;
const RATE_HZ = 30;

class Player extends Schema {}
defineTypes(Player, { x: "uint16", y: "uint16", score: "uint16" });

class State extends Schema {
  constructor() {
    super();
    this.players = new MapSchema();
  }
}
defineTypes(State, { players: { map: Player } });

class Swarm extends Room {
  state = new State();
  maxClients = 10_000;
  patchRate = 1000 / RATE_HZ;
  bodies = new Map(); // what is not synchronised: exact positions and directions

  onCreate() {
    this.onMessage("input", (client, { dx, dy }) => {
      const body = this.bodies.get(client.sessionId);
      body.dx = dx;
      body.dy = dy;
    });
    this.setSimulationInterval(() => this.step(1 / RATE_HZ), 1000 / RATE_HZ);
  }

  onJoin(client) {
    const body = { x: Math.random() * WORLD, y: Math.random() * WORLD, dx: 0, dy: 0, seen: new Player() };
    body.seen.x = body.x * 64;
    body.seen.y = body.y * 64;
    body.seen.score = 0;
    this.bodies.set(client.sessionId, body);
    this.state.players.set(client.sessionId, body.seen);
  }

  onLeave(client) {
    this.bodies.delete(client.sessionId);
    this.state.players.delete(client.sessionId);
  }

  step(dt) {
    for (const body of this.bodies.values()) {
      body.x += body.dx * SPEED * dt;
      body.y += body.dy * SPEED * dt;
      if (body.x < 0 || body.x > WORLD) {
        body.x = Math.min(Math.max(body.x, 0), WORLD);
        body.dx *= -1;
      }
      if (body.y < 0 || body.y > WORLD) {
        body.y = Math.min(Math.max(body.y, 0), WORLD);
        body.dy *= -1;
      }
      // Setting a field to the value that it has is no change.
      body.seen.x = Math.round(body.x * 64);
      body.seen.y = Math.round(body.y * 64);
    }
  }
}

const server = http.createServer();
const game = new Server({ greet: false, transport: new WebSocketTransport({ server }) });
game.define("swarm", Swarm);
await game.listen(0, "127.0.0.1");
const { version } = createRequire(import.meta.url)("@colyseus/core/package.json");
console.log(`ready ${server.address().port} ${version}`);
