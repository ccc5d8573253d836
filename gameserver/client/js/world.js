/**
 * Worlds, and the bytes of full and delta snapshots; docs/protocol.md "Tables".
 *
 * A `World` is one tick's state as wire integers, never changed once made. Nothing is read past a message's end, and what is
 * allocated is bounded by its size.
 */

import { ProtocolError } from "./schema.js";

/** @typedef {{ids: Uint16Array, columns: any[]}} Rows ids ascending, one typed array per field, all of one length */

/** Every table at one tick. */
export class World {
  /**
   * @param {import("./schema.js").Schema} schema
   * @param {Rows[]} tables in the schema's order
   */
  constructor(schema, tables) {
    this.schema = schema;
    this.tables = tables;
    /** @type {Map<string, Map<number, any>>} */
    this._rows = new Map();
  }

  /**
   * One table as a game sees it: a Map from id to a row `{id, field: value, …}`; made once, on demand.
   * @param {string} table
   * @returns {Map<number, any>}
   */
  rows(table) {
    let rows = this._rows.get(table);
    if (rows === undefined) {
      const index = this.schema.names.indexOf(table);
      if (index < 0) throw new TypeError(`no table ${table}; there are: ${this.schema.names.join(", ")}`);
      rows = values(this.tables[index], this.schema.tables[index].list);
      this._rows.set(table, rows);
    }
    return rows;
  }
}

/**
 * Read a full snapshot. Throws ProtocolError.
 * @param {import("./schema.js").Schema} schema
 * @param {Uint8Array} body
 */
export function decodeFull(schema, body) {
  const reader = new Body(body);
  const tables = schema.tables.map((fields) => readRows(reader, fields));
  reader.end();
  return new World(schema, tables);
}

/**
 * Read a delta snapshot made against `baseline`. Throws ProtocolError.
 * @param {World} baseline
 * @param {Uint8Array} body
 */
export function applyDelta(baseline, body) {
  const reader = new Body(body);
  const tables = baseline.schema.tables.map((fields, index) => {
    const removed = readIds(reader);
    const added = readRows(reader, fields);
    const kept = without(baseline.tables[index], removed);
    const columns = kept.columns.map((then, k) => readColumn(reader, then, fields.list[k].kind));
    return merge({ ids: kept.ids, columns }, added);
  });
  reader.end();
  return new World(baseline.schema, tables);
}

/**
 * @param {Rows} rows
 * @param {import("./schema.js").Field[]} fields
 */
function values({ ids, columns }, fields) {
  const rows = new Map();
  for (let k = 0; k < ids.length; k++) {
    // No prototype: a field may have any name.
    const row = Object.create(null);
    row.id = ids[k];
    for (let f = 0; f < fields.length; f++) row[fields[f].name] = fields[f].fromWire(columns[f][k]);
    rows.set(ids[k], row);
  }
  return rows;
}

/** @param {Body} reader */
function readIds(reader) {
  const ids = reader.array(Uint16Array, reader.short());
  for (let k = 1; k < ids.length; k++) if (ids[k] <= ids[k - 1]) throw new ProtocolError("ids are not ascending");
  return ids;
}

/** @returns {Rows} */
function readRows(reader, fields) {
  const ids = readIds(reader);
  return { ids, columns: fields.list.map((field) => reader.array(field.array, ids.length)) };
}

/** @returns {Rows} */
function without({ ids, columns }, removed) {
  if (removed.length === 0) return { ids, columns };
  const gone = new Set(removed);
  const stays = ids.map((id) => (gone.has(id) ? 0 : 1));
  return { ids: ids.filter((_, k) => stays[k]), columns: columns.map((column) => column.filter((_, k) => stays[k])) };
}

/** @returns {Rows} */
function merge(kept, added) {
  if (added.ids.length === 0) return kept;
  const size = kept.ids.length + added.ids.length;
  const ids = new Uint16Array(size);
  const columns = kept.columns.map((column) => new column.constructor(size));
  for (let at = 0, i = 0, j = 0; at < size; at++) {
    const fromKept = j === added.ids.length || (i < kept.ids.length && kept.ids[i] <= added.ids[j]);
    const [rows, k] = fromKept ? [kept, i++] : [added, j++];
    ids[at] = rows.ids[k];
    if (at > 0 && ids[at] === ids[at - 1]) throw new ProtocolError("a row was added that is there already");
    for (let f = 0; f < columns.length; f++) columns[f][at] = rows.columns[f][k];
  }
  return { ids, columns };
}

/** A kept column by its mode: 0 as before, 1 and 2 raw values, 3 and 4 differences; 1 and 3 for the rows of a bitmap. */
function readColumn(reader, then, kind) {
  const mode = reader.byte();
  if (mode === 0) return then;
  if (mode > 4 || (mode > 2 && kind === "f32")) throw new ProtocolError(`column mode ${mode}`);
  const n = then.length;
  const rows = mode === 1 || mode === 3 ? readBitmap(reader, n) : null;
  const sent = reader.array(mode <= 2 ? then.constructor : Int8Array, rows === null ? n : rows.length);
  const column = then.slice();
  for (let k = 0; k < sent.length; k++) {
    const row = rows === null ? k : rows[k];
    column[row] = mode <= 2 ? sent[k] : then[row] + sent[k]; // a typed array wraps as the wire does
  }
  return column;
}

/** The rows whose bit is set. */
function readBitmap(reader, n) {
  const bits = reader.array(Uint8Array, Math.ceil(n / 8));
  const rows = [];
  for (let k = 0; k < bits.length * 8; k++) {
    if (!((bits[k >> 3] >> (k & 7)) & 1)) continue;
    if (k >= n) throw new ProtocolError("padding bits are set");
    rows.push(k);
  }
  return rows;
}

/** Reads arrays off a snapshot's body. */
class Body {
  /** @param {Uint8Array} body */
  constructor(body) {
    this._body = body;
    this._at = 0;
  }

  byte() {
    return this.array(Uint8Array, 1)[0];
  }

  short() {
    return this.array(Uint16Array, 1)[0];
  }

  array(type, count) {
    const end = this._at + count * type.BYTES_PER_ELEMENT;
    if (end > this._body.length) throw new ProtocolError(`${this._body.length} bytes of snapshot are too few`);
    const copy = this._body.slice(this._at, end); // slices are aligned, the message's parts are not
    this._at = end;
    return new type(copy.buffer);
  }

  end() {
    if (this._at !== this._body.length) throw new ProtocolError(`${this._body.length - this._at} bytes left over in a snapshot`);
  }
}
