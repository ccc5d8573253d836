/**
 * The matchmaker's REST API from a player's side: tickets, their states as they change, and the way back to a session.
 *
 * States come as server-sent events, resumed where they broke off; where a network lets no stream through, over a WebSocket; where it lets
 * neither through, by asking every second.
 */

import { browserClock } from "./connection.js";
import { Parties } from "./parties.js";

/** A ticket in one of these is over. */
export const FINAL_STATES = Object.freeze(["assigned", "cancelled", "timed_out", "failed"]);
const RETRY_MS = 250;
const LONGEST_RETRY_MS = 4000;
const POLL_MS = 1000;
const REQUEST_TIMEOUT_MS = 10_000;
/** A stream that says nothing for so long, not even that it is still there, is asked for anew. */
const SILENT_STREAM_MS = 60_000;

/** The matchmaker refused; `status` is HTTP's, 0 where it could not be reached. */
export class MatchmakingError extends Error {
  /** @param {string} message @param {number} [status] */
  constructor(message, status = 0) {
    super(message);
    this.name = "MatchmakingError";
    this.status = status;
  }
}

export class Matchmaking {
  /**
   * @param {object} options
   * @param {string} options.baseUrl `https://…`
   * @param {string} [options.token] the player's bearer token
   * @param {typeof globalThis.fetch} [options.fetch]
   * @param {typeof globalThis.WebSocket} [options.WebSocket]
   * @param {import("./index.js").Clock} [options.clock]
   */
  constructor({ baseUrl, token = "", fetch = (...request) => globalThis.fetch(...request), WebSocket = globalThis.WebSocket, clock }) {
    this._baseUrl = baseUrl.replace(/\/$/, "");
    this._token = token;
    this._fetch = fetch;
    this._WebSocket = WebSocket;
    this._clock = clock ?? browserClock();
    this.parties = new Parties(this);
  }

  /** Get a player and its token from a `warmfleet up`, and use them. @param {string} [name] */
  async developmentPlayer(name = "") {
    const body = await this._call("POST", "/v1/dev/players", name === "" ? {} : { name });
    this._token = body.token;
    return { player: String(body.player), token: String(body.token) };
  }

  /**
   * Queue up. The request is repeated safely: the key makes a repetition the same ticket.
   * @param {string} queue
   * @param {{id: string, attributes?: object, latencies?: object}[]} players
   */
  async createTicket(queue, players) {
    const headers = { "Idempotency-Key": randomKey() };
    try {
      return await this._call("POST", "/v1/tickets", { queue, players }, headers);
    } catch (error) {
      if (error.status !== 0) throw error;
      return this._call("POST", "/v1/tickets", { queue, players }, headers);
    }
  }

  /** A ticket as it stands. @param {string} ticket */
  ticket(ticket) {
    return this._call("GET", `/v1/tickets/${encodeURIComponent(ticket)}`);
  }

  /** Accept or decline the match that is proposed to a ticket; status 409 when there is none (any more). @param {string} ticket @param {boolean} accept */
  accept(ticket, accept = true) {
    return this._call("POST", `/v1/tickets/${encodeURIComponent(ticket)}/acceptance`, { accept });
  }

  /** Why a ticket waits: which rule blocks, when it relaxes, how many fit, whether servers are the matter. @param {string} ticket */
  explanation(ticket) {
    return this._call("GET", `/v1/tickets/${encodeURIComponent(ticket)}/explanation`);
  }

  /** How a session stands, and its results once it has ended. @param {string} session */
  session(session) {
    return this._call("GET", `/v1/sessions/${encodeURIComponent(session)}`);
  }

  /** Leave the queue; a ticket that is over already is no error. @param {string} ticket */
  async cancelTicket(ticket) {
    try {
      await this._call("DELETE", `/v1/tickets/${encodeURIComponent(ticket)}`);
    } catch (error) {
      if (error.status !== 404 && error.status !== 409) throw error;
    }
  }

  /** The queues, and how they do: `{name, depth, playersPerMatch, …}` each. */
  queues() {
    return this._call("GET", "/v1/queues");
  }

  /** The regions and their beacons, for `measureRegions`. */
  regions() {
    return this._call("GET", "/v1/regions");
  }

  /** The regions, and the beacons at which a player measures its round trips: `{region, http, udp}` each. */
  regions() {
    return this._call("GET", "/v1/regions");
  }

  /** Where a session is now; status 410 when it has ended. @param {string} session */
  seat(session) {
    return this._call("GET", `/v1/sessions/${encodeURIComponent(session)}/seat`);
  }

  /**
   * The ticket now and at each change, through lost connections, until it is over.
   * @param {string} ticket
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<import("./index.js").Ticket>}
   */
  async *states(ticket, signal) {
    const path = `/v1/tickets/${encodeURIComponent(ticket)}`;
    const position = { lastId: "" };
    const ways = [() => this._stream(path, position, signal), () => this._watch(path, signal), () => this._poll(path, signal)];
    let pauseMs = RETRY_MS;
    for (let tries = 0; !signal?.aborted; tries++) {
      try {
        for await (const state of ways[tries % ways.length]()) {
          tries = -1; // this way works: after a break it is tried again first
          pauseMs = RETRY_MS;
          yield state;
          if (FINAL_STATES.includes(state.state)) return;
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
      }
      await this._sleep(pauseMs, signal);
      pauseMs = Math.min(2 * pauseMs, LONGEST_RETRY_MS);
    }
  }

  async *_stream(path, position, signal) {
    const headers = { Accept: "text/event-stream", ...(position.lastId === "" ? {} : { "Last-Event-ID": position.lastId }) };
    const reply = await this._fetch(`${this._baseUrl}${path}/events`, { headers: { ...headers, ...this._bearer() }, signal });
    if (!reply.ok) throw await problem(reply);
    if (reply.body === null) return;
    for await (const { id, data } of serverSentEvents(this._unlessSilent(reply.body))) {
      const state = JSON.parse(data);
      position.lastId = id || position.lastId;
      yield state;
    }
  }

  /** The same bytes; ends them when none have come for too long. */
  _unlessSilent(body) {
    let timer;
    const watch = (controller) => {
      this._clock.clearTimeout(timer);
      timer = this._clock.setTimeout(() => controller.terminate(), SILENT_STREAM_MS);
    };
    const passing = {
      start: watch,
      transform(chunk, controller) {
        watch(controller);
        controller.enqueue(chunk);
      },
      flush: () => this._clock.clearTimeout(timer),
      cancel: () => this._clock.clearTimeout(timer),
    };
    return body.pipeThrough(new TransformStream(passing));
  }

  /** A browser's WebSocket sends no headers: the token goes as a subprotocol. */
  async *_watch(path, signal) {
    const socket = new this._WebSocket(`${this._baseUrl.replace(/^http/, "ws")}${path}/watch`, ["warmfleet.tickets.1", `bearer.${this._token}`]);
    /** @type {(string | null)[]} null is the end */
    const messages = [];
    let wake = () => {};
    const put = (message) => {
      messages.push(message);
      wake();
    };
    socket.onmessage = (event) => put(event.data);
    socket.onclose = () => put(null);
    const abort = () => socket.close();
    signal?.addEventListener("abort", abort);
    try {
      for (;;) {
        while (messages.length === 0) await new Promise((resolve) => (wake = () => resolve(undefined)));
        const message = messages.shift();
        if (typeof message !== "string") return;
        yield JSON.parse(message);
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      socket.close();
    }
  }

  async *_poll(path, signal) {
    for (let last = ""; !signal?.aborted; await this._sleep(POLL_MS, signal)) {
      const state = await this._call("GET", path);
      if (JSON.stringify(state) !== last) yield state;
      last = JSON.stringify(state);
    }
  }

  _bearer() {
    return this._token === "" ? {} : { Authorization: `Bearer ${this._token}` };
  }

  async _call(method, path, body = undefined, headers = {}) {
    const request = {
      method,
      headers: { ...this._bearer(), ...headers, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    };
    let reply;
    let text;
    try {
      reply = await this._fetch(this._baseUrl + path, request);
      if (reply.ok) text = await reply.text();
    } catch (error) {
      throw new MatchmakingError(`the matchmaker cannot be reached (${error.message})`);
    }
    if (!reply.ok) throw await problem(reply);
    try {
      return text === "" ? {} : JSON.parse(text);
    } catch {
      throw new MatchmakingError(`${path}: no JSON in the answer`, reply.status);
    }
  }

  _sleep(ms, signal) {
    return new Promise((resolve) => {
      const done = () => {
        this._clock.clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        resolve(undefined);
      };
      const timer = this._clock.setTimeout(done, ms);
      signal?.addEventListener("abort", done);
    });
  }
}

/**
 * Parse server-sent events (the HTML standard's event stream) off a body.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<{id: string, data: string}>}
 */
export async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, id, data] = ["", "", ""];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data !== "") yield { id, data: data.slice(0, -1) };
          data = "";
        } else if (line.startsWith("data:")) data += line.slice(line[5] === " " ? 6 : 5) + "\n";
        else if (line.startsWith("id:")) id = line.slice(3).trim();
      }
    }
  } finally {
    await reader.cancel().catch(() => {}); // the connection may be gone already
  }
}

async function problem(reply) {
  let detail = "";
  try {
    const body = await reply.json();
    detail = body.detail ?? body.title ?? "";
    if (typeof detail !== "string") detail = JSON.stringify(detail);
  } catch {
    // no problem+json: the status says it
  }
  return new MatchmakingError(detail || `HTTP ${reply.status}`, reply.status);
}

/** 128 random bits; `crypto.randomUUID` is not there on plain http. */
function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
