// A clock that a test moves, a network whose far end the test is, and a server's bytes.

import { readFileSync } from "node:fs";

export const vectors = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), "utf8"));

export const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));

/** Let promises that are settled run their course. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

export class FakeClock {
  #now = 1000;
  #timers = [];

  now = () => this.#now;

  setTimeout = (run, ms) => {
    const timer = { run, at: this.#now + Math.max(0, ms) };
    this.#timers.push(timer);
    return timer;
  };

  clearTimeout = (timer) => {
    this.#timers = this.#timers.filter((other) => other !== timer);
  };

  /** Move on, running the timers that fall due, and what they set off. */
  async pass(ms) {
    const end = this.#now + ms;
    for (;;) {
      await settle();
      const due = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.clearTimeout(due);
      this.#now = Math.max(this.#now, due.at);
      due.run();
    }
    this.#now = end;
    await settle();
  }
}

/** Makes a WebSocket class whose instances are collected in `sockets`. */
export function fakeWebSockets() {
  const sockets = [];
  class FakeWebSocket {
    static OPEN = 1;
    readyState = 0;
    bufferedAmount = 0;
    sent = [];
    closed = null;
    constructor(url, protocols) {
      this.url = url;
      this.protocols = protocols;
      sockets.push(this);
    }
    send(data) {
      this.sent.push(Buffer.from(data).toString("hex"));
    }
    close(code) {
      this.readyState = 3;
      this.closed ??= code;
    }
    // The far end:
    open() {
      this.readyState = 1;
      this.onopen();
    }
    say(data) {
      this.onmessage({ data: typeof data === "string" ? data : Uint8Array.from(data).buffer });
    }
    drop(code = 1006, reason = "") {
      this.readyState = 3;
      this.onclose({ code, reason });
    }
  }
  return { sockets, FakeWebSocket };
}

const ROOM = {
  schema: { tables: [{ name: "players", fields: [{ name: "x", type: "float", min: 0, max: 64, precision: 0.5 }] }] },
  inputs: { fields: [{ name: "move", type: "i8" }] },
};

const little = (size, value) => {
  const out = Buffer.alloc(size);
  out.writeUIntLE(value, 0, size);
  return out;
};
const json = (size, value) => {
  const text = Buffer.from(JSON.stringify(value));
  return Buffer.concat([little(size, text.length), text]);
};

/** What a server with one table, players(x), says. */
export const server = {
  welcome: ({ seat = 1, rate = 20, tick = 0, epoch = 1, room = ROOM } = {}) =>
    Buffer.concat([Buffer.of(0x81, 1), little(2, seat), little(2, rate), little(4, tick), little(4, epoch), json(4, room)]),
  /** A full snapshot with one player, `id` 1, at `x`. */
  full: (tick, x, ack = 0) =>
    Buffer.concat([Buffer.of(0x82), little(4, ack), little(4, tick), little(4, 0), Buffer.of(0), little(2, 1), little(2, 1), Buffer.of(x * 2)]),
  /** A delta that moves the player by `by`. */
  delta: (tick, baseline, by, ack = 0) =>
    Buffer.concat([Buffer.of(0x82), little(4, ack), little(4, tick), little(4, baseline), Buffer.of(0), little(4, 0), Buffer.of(4, (by * 2) & 255)]),
  event: (seq, data, tick = 1) => Buffer.concat([Buffer.of(0x83), little(4, seq), little(4, tick), json(2, data)]),
  pong: (clientMs, tick) => Buffer.concat([Buffer.of(0x84), little(4, clientMs), little(4, tick * 256)]),
  migrate: (data) => Buffer.concat([Buffer.of(0x85), json(2, data)]),
  bye: (code, reason = "") => Buffer.concat([Buffer.of(0x86, code), little(2, reason.length), Buffer.from(reason)]),
};

export const place = (port, epoch = 1, more = {}) => ({
  session: "arena.M1", epoch, server: `s${epoch}`, host: "127.0.0.1", ports: { websocket: port }, seat: { index: 1, team: "" }, token: `t${epoch}`, ...more,
});
