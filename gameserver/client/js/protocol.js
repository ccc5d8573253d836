/**
 * The messages of the wire protocol and their bytes; docs/protocol.md is the specification.
 *
 * Any byte string decodes to a message or throws ProtocolError. Does no I/O; `connection.js` carries the bytes.
 */

import { ProtocolError } from "./schema.js";

export { Field, Fields, ProtocolError, Schema } from "./schema.js";
export { World, applyDelta, decodeFull } from "./world.js";

export const VERSION = 1;
export const SUBPROTOCOL = "warmfleet.1";
export const SPECTATOR_SEAT = 0xffff;
/** Inputs in one message at most. */
export const MAX_INPUTS = 32;

/** Why a connection ends: in Bye, and plus 4000 as the WebSocket's close code. */
export const CloseCode = Object.freeze({
  NORMAL: 0,
  GOING_AWAY: 1,
  MALFORMED: 2,
  UNAUTHORIZED: 3,
  VERSION: 4,
  TOO_SLOW: 5,
  FLOOD: 6,
  SUPERSEDED: 7,
  KICKED: 8,
  GAME_ERROR: 9,
  TIMEOUT: 10,
  FULL: 11,
  FENCED: 12,
});

/** @param {string} token @param {boolean} [spectator] */
export function encodeHello(token, spectator = false) {
  return new Writer(0x01).u8(VERSION).u8(spectator ? 1 : 0).str16(token).bytes();
}

/**
 * @param {{ackTick: number, ackEvent: number, view: number, firstSeq: number, records: Uint8Array[]}} input
 *   `view`: tick × 256 that the player saw; `records`: 1 to 32, the first numbered `firstSeq`
 */
export function encodeInput({ ackTick, ackEvent, view, firstSeq, records }) {
  if (records.length < 1 || records.length > MAX_INPUTS) throw new RangeError(`${records.length} inputs in one message`);
  const writer = new Writer(0x02).u32(ackTick).u32(ackEvent).u32(view).u32(firstSeq).u8(records.length);
  for (const record of records) writer.raw(record);
  return writer.bytes();
}

/** @param {number} clientMs any clock of the client's, modulo 2³² */
export function encodePing(clientMs) {
  return new Writer(0x03).u32(clientMs).bytes();
}

/** @param {number} code @param {string} [reason] */
export function encodeBye(code, reason = "") {
  return new Writer(0x04).u8(code).str16(reason).bytes();
}

/**
 * Read a message that a server sent. Throws ProtocolError.
 * @param {Uint8Array} data
 * @returns {import("./index.js").ServerMessage}
 */
export function decodeServer(data) {
  const reader = new Reader(data);
  const message = readMessage(reader);
  reader.end();
  return message;
}

/** @param {Reader} reader */
function readMessage(reader) {
  const type = reader.u8();
  switch (type) {
    case 0x81: {
      const version = reader.u8();
      if (version !== VERSION) throw new ProtocolError(`protocol version ${version}, ${VERSION} is spoken here`);
      const [seat, tickRateHz] = [reader.u16(), reader.u16()];
      if (tickRateHz === 0) throw new ProtocolError("a tick rate of 0");
      return { type: "welcome", version, seat, tickRateHz, tick: reader.u32(), epoch: reader.u32(), room: reader.json(reader.u32()) };
    }
    case 0x82: {
      const [ackInput, tick, baseline, flags] = [reader.u32(), reader.u32(), reader.u32(), reader.u8()];
      if (flags !== 0) throw new ProtocolError(`unknown snapshot flags ${flags}`);
      return { type: "snapshot", ackInput, tick, baseline, body: reader.rest() };
    }
    case 0x83:
      return { type: "event", seq: reader.u32(), tick: reader.u32(), data: reader.json(reader.u16()) };
    case 0x84:
      return { type: "pong", clientMs: reader.u32(), serverTick: reader.u32() };
    case 0x85:
      return { type: "migrate", data: reader.json(reader.u16()) };
    case 0x86:
      return { type: "bye", code: reader.u8(), reason: reader.text(reader.u16()) };
    default:
      // Fragments (0x87) travel over UDP only.
      throw new ProtocolError(`unknown type 0x${type.toString(16)}`);
  }
}

/** Reads one message; every method checks that the bytes are there. */
class Reader {
  /** @param {Uint8Array} data */
  constructor(data) {
    this._data = data;
    this._view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this._at = 0;
  }

  _take(size) {
    const at = this._at;
    if (at + size > this._data.length) throw new ProtocolError(`${this._data.length} bytes are too few`);
    this._at += size;
    return at;
  }

  u8() {
    return this._view.getUint8(this._take(1));
  }

  u16() {
    return this._view.getUint16(this._take(2), true);
  }

  u32() {
    return this._view.getUint32(this._take(4), true);
  }

  text(size) {
    const at = this._take(size);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this._data.subarray(at, at + size));
    } catch {
      throw new ProtocolError("no UTF-8");
    }
  }

  json(size) {
    const text = this.text(size);
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      throw new ProtocolError("no JSON");
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new ProtocolError("no JSON object");
    return value;
  }

  rest() {
    const at = this._at;
    this._at = this._data.length;
    return this._data.subarray(at);
  }

  end() {
    if (this._at !== this._data.length) throw new ProtocolError(`${this._data.length - this._at} bytes left over`);
  }
}

/** Builds one message. */
class Writer {
  /** @param {number} type */
  constructor(type) {
    /** @type {number[]} */
    this._bytes = [type];
  }

  u8(value) {
    this._bytes.push(value & 0xff);
    return this;
  }

  u16(value) {
    return this.u8(value).u8(value >>> 8);
  }

  u32(value) {
    return this.u16(value).u16(value >>> 16);
  }

  raw(bytes) {
    this._bytes.push(...bytes);
    return this;
  }

  str16(text) {
    const bytes = new TextEncoder().encode(text);
    if (bytes.length > 0xffff) throw new RangeError(`a text of ${bytes.length} bytes`);
    return this.u16(bytes.length).raw(bytes);
  }

  bytes() {
    return Uint8Array.from(this._bytes);
  }
}
