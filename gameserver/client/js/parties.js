/**
 * Parties: players who gather by a code, say that they are ready, and are queued by their leader as one ticket.
 *
 * ```js
 * const party = await matchmaking.parties.create({ attributes: { rating: 1500 } }); // party.code lets others in
 * for await (const now of matchmaking.parties.states(party.id, signal)) draw(now); // now.ticket: follow it
 * ```
 */

const POLL_MS = 1000;

export class Parties {
  /** @param {import("./matchmaking.js").Matchmaking} matchmaking */
  constructor(matchmaking) {
    this._matchmaking = matchmaking;
  }

  /** Make a party and lead it. @param {import("./index.js").Brings} [brings] */
  create(brings = {}) {
    return this._call("POST", "", brings);
  }

  /** Join by its code; status 404 where no party has it, 429 after too many wrong ones. @param {string} code @param {import("./index.js").Brings} [brings] */
  join(code, brings = {}) {
    return this._call("POST", "/join", { code: code.trim(), ...brings });
  }

  /** The party that the player is in; null when it is in none. */
  async mine() {
    try {
      return await this._call("GET", "/mine");
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  /** @param {string} party @param {string} player oneself @param {boolean} ready @param {import("./index.js").Brings} [brings] what one brings now */
  ready(party, player, ready, brings = undefined) {
    return this._call("PUT", `/${encodeURIComponent(party)}/members/${encodeURIComponent(player)}`, { ready, ...(brings === undefined ? {} : { brings }) });
  }

  /** Leave, or as the leader remove another; who has gone already is no error. @param {string} party @param {string} player */
  async leave(party, player) {
    try {
      await this._call("DELETE", `/${encodeURIComponent(party)}/members/${encodeURIComponent(player)}`);
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }

  /** Queue it, as its leader; returns the ticket. @param {string} party @param {string} queue */
  queue(party, queue) {
    return this._call("POST", `/${encodeURIComponent(party)}/tickets`, { queue });
  }

  /**
   * The party now and at each change, through lost connections, until one is not in it any more.
   * @param {string} party
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<import("./index.js").Party>}
   */
  async *states(party, signal) {
    const path = `/v1/parties/${encodeURIComponent(party)}`;
    const position = { lastId: "" };
    const gone = (error) => error.status >= 400 && error.status < 500 && error.status !== 429;
    while (!signal?.aborted) {
      try {
        for await (const state of this._matchmaking._stream(path, position, signal)) yield state;
        yield await this._matchmaking._call("GET", path); // where no stream comes through
      } catch (error) {
        if (signal?.aborted || gone(error)) return;
      }
      await this._matchmaking._sleep(POLL_MS, signal);
    }
  }

  _call(method, path, body = undefined) {
    return this._matchmaking._call(method, `/v1/parties${path}`, body);
  }
}
