/**
 * What a game's state and inputs look like on the wire, as the server's Welcome describes them; docs/protocol.md "Schema".
 *
 * Owns field types and their quantisation. Everything here comes from the network: a description that makes no sense is a ProtocolError.
 */

/** The peer's bytes break docs/protocol.md: the connection ends with close code `malformed`. */
export class ProtocolError extends Error {
  /** @param {string} message what was wrong */
  constructor(message) {
    super(message);
    this.name = "ProtocolError";
  }
}

// Columns are copied out of messages as they are: the wire is little-endian, and so is every machine that runs a browser.
if (new Uint8Array(Uint16Array.of(1).buffer)[0] !== 1) throw new Error("warmfleet needs a little-endian machine");

const ARRAYS = {
  u8: Uint8Array, u16: Uint16Array, u32: Uint32Array,
  i8: Int8Array, i16: Int16Array, i32: Int32Array,
  bool: Uint8Array, f32: Float32Array,
};
const LIMITS = {
  u8: [0, 0xff], u16: [0, 0xffff], u32: [0, 0xffffffff],
  i8: [-0x80, 0x7f], i16: [-0x8000, 0x7fff], i32: [-0x80000000, 0x7fffffff],
};

/** One field's type. */
export class Field {
  /** @param {any} description one entry of a `fields` list */
  constructor(description) {
    const { name, type, min, max, precision } = object(description, "a field");
    if (typeof name !== "string" || name === "" || name === "id") throw new ProtocolError(`no field name: ${name}`);
    this.name = name;
    this.kind = type;
    this.min = this.max = this.precision = 0;
    this.steps = 0;
    if (type === "float") {
      if (![min, max, precision].every(Number.isFinite) || min >= max || precision <= 0) {
        throw new ProtocolError(`field ${name}: no range`);
      }
      [this.min, this.max, this.precision] = [min, max, precision];
      this.steps = roundEven((max - min) / precision);
      if (this.steps > 0xffffffff) throw new ProtocolError(`field ${name}: more than 32 bits`);
      this.array = this.steps < 1 << 8 ? Uint8Array : this.steps < 1 << 16 ? Uint16Array : Uint32Array;
    } else {
      if (!Object.hasOwn(ARRAYS, type)) throw new ProtocolError(`field ${name}: unknown type ${type}`);
      this.array = ARRAYS[type];
    }
    this.size = this.array.BYTES_PER_ELEMENT;
  }

  /**
   * A value as it goes over the wire: clamped and rounded, halves to even; NaN is the lowest.
   * @param {number | boolean | undefined} value undefined is 0
   */
  toWire(value) {
    const number = Number(value ?? 0);
    if (this.kind === "bool") return value ? 1 : 0;
    if (this.kind === "f32") return number;
    if (this.kind === "float") {
      if (Number.isNaN(number)) return 0;
      return roundEven((Math.min(Math.max(number, this.min), this.max) - this.min) / this.precision);
    }
    const [low, high] = LIMITS[this.kind];
    return Number.isNaN(number) ? 0 : Math.min(Math.max(roundEven(number), low), high);
  }

  /**
   * @param {number} wire
   * @returns {number | boolean}
   */
  fromWire(wire) {
    if (this.kind === "float") return this.min + Math.min(wire, this.steps) * this.precision;
    return this.kind === "bool" ? wire !== 0 : wire;
  }
}

/** A record's fields in order: one input, or one table's columns. */
export class Fields {
  /** @param {any} description `{"fields": […]}` */
  constructor(description) {
    const { fields } = object(description, "fields");
    if (!Array.isArray(fields)) throw new ProtocolError("no list of fields");
    /** @type {Field[]} */
    this.list = fields.map((field) => new Field(field));
    if (new Set(this.list.map((field) => field.name)).size !== fields.length) throw new ProtocolError("a field is there twice");
    this.size = this.list.reduce((sum, field) => sum + field.size, 0);
  }

  /**
   * Pack one record, in order and without padding; a missing field is 0 (clamped into its range).
   * @param {Record<string, number | boolean>} values
   * @returns {Uint8Array}
   */
  encode(values) {
    for (const name of Object.keys(values)) {
      if (!this.list.some((field) => field.name === name)) {
        throw new TypeError(`unknown input field ${name}; there are: ${this.list.map((field) => field.name).join(", ")}`);
      }
    }
    const record = new Uint8Array(this.size);
    let at = 0;
    for (const field of this.list) {
      record.set(new Uint8Array(field.array.of(field.toWire(values[field.name])).buffer), at);
      at += field.size;
    }
    return record;
  }

  /**
   * Unpack one record: what the server will read.
   * @param {Uint8Array} record
   * @returns {Record<string, number | boolean>}
   */
  decode(record) {
    if (record.length !== this.size) throw new ProtocolError(`a record of ${record.length} bytes, ${this.size} are wanted`);
    const values = Object.create(null);
    let at = 0;
    for (const field of this.list) {
      values[field.name] = field.fromWire(new field.array(record.slice(at, at + field.size).buffer)[0]);
      at += field.size;
    }
    return values;
  }
}

/** The tables of a snapshot, in order. */
export class Schema {
  /** @param {any} description `{"tables": […]}` */
  constructor(description) {
    const { tables } = object(description, "a schema");
    if (!Array.isArray(tables) || tables.length === 0) throw new ProtocolError("no list of tables");
    this.names = tables.map((table) => String(object(table, "a table").name));
    if (new Set(this.names).size !== tables.length) throw new ProtocolError("a table is there twice");
    this.tables = tables.map((table) => new Fields(table));
  }
}

/**
 * Round to the nearest integer, halves to the even one.
 * @param {number} value
 */
export function roundEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/**
 * @param {any} value
 * @param {string} what
 */
function object(value, what) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new ProtocolError(`no object where ${what} is wanted`);
  return value;
}
