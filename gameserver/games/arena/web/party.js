/** The card of a party: its code, who is in it, who is ready, and the leader's start. Its changes come from the matchmaker's stream. */

import { MatchmakingError } from "/sdk/index.js";
import { element } from "./hud.js";

export class PartyCard {
  /**
   * @param {object} told
   * @param {(player: string) => string} told.nameOf
   * @param {(ticket: string) => void} told.queued the party has a ticket
   * @param {() => void} told.changed something to show
   * @param {(problem: string) => void} told.left one is in no party any more
   */
  constructor(told) {
    this._told = told;
    /** @type {import("/sdk/index.js").Party | null} */
    this.party = null;
    /** @type {AbortController | null} */
    this._following = null;
    this._ticket = "";
    element("ready").addEventListener("click", () => this._do(() => this._readyOrStart()));
    element("disband").addEventListener("click", () => this.leave());
    element("join").addEventListener("submit", (event) => {
      event.preventDefault();
      this._do(() => this._joinAnother(/** @type {HTMLInputElement} */ (element("code-to-join")).value));
    });
  }

  /**
   * Be in a party: the one that the player is in, one with this code, or a new one.
   * @param {import("/sdk/index.js").Matchmaking} matchmaking @param {string} player @param {import("/sdk/index.js").Brings} brings @param {string} [code]
   */
  async enter(matchmaking, player, brings, code = "") {
    Object.assign(this, { _matchmaking: matchmaking, _parties: matchmaking.parties, _player: player, _brings: brings });
    const ask = () => (code === "" ? this._parties.create(brings) : this._parties.join(code, brings));
    const party = await ask().catch(async (error) => {
      const kept = error.status === 409 ? await this._parties.mine() : null;
      if (kept === null || kept.code === code) throw error; // full, or waiting for a match
      if (code === "") return kept;
      await this._parties.leave(kept.id, player);
      return ask();
    });
    this._take(party);
    this._follow(party.id);
  }

  async leave() {
    const { party } = this;
    this._following?.abort();
    this.party = null;
    if (party !== null) await this._do(() => this._parties.leave(party.id, this._player));
    this._told.left("");
  }

  async _follow(id) {
    this._following?.abort();
    const following = (this._following = new AbortController());
    for await (const party of this._parties.states(id, following.signal)) this._take(party);
    if (following.signal.aborted) return;
    this.party = null;
    this._told.left("You are not in the party any more.");
  }

  _take(party) {
    this.party = party;
    this._draw();
    const ticket = party.ticket ?? "";
    if (ticket !== "" && ticket !== this._ticket) this._told.queued(ticket);
    this._ticket = ticket;
    this._told.changed();
  }

  get _leads() {
    return this.party?.leader === this._player;
  }

  async _readyOrStart() {
    const { party } = this;
    if (party === null) return;
    if (!this._leads) {
      const ready = party.members.some(({ id, ready }) => id === this._player && ready);
      this._take(await this._parties.ready(party.id, this._player, !ready));
      return;
    }
    const wanted = new URLSearchParams(location.search).get("queue");
    const fitting = (await this._matchmaking.queues()).filter(({ partyMax }) => partyMax >= party.members.length);
    const queue = fitting.find(({ name }) => name === wanted) ?? fitting[0];
    if (queue === undefined) throw new MatchmakingError(`No queue takes a party of ${party.members.length}.`);
    await this._parties.queue(party.id, queue.name);
  }

  async _joinAnother(code) {
    if (code.trim() === "") return;
    const before = this.party;
    if (before !== null && before.members.length === 1) await this._parties.leave(before.id, this._player);
    await this.enter(this._matchmaking, this._player, this._brings, code.trim().toUpperCase());
  }

  /** Show what the matchmaker refuses. */
  async _do(what) {
    element("party-problem").hidden = true;
    try {
      await what();
    } catch (error) {
      if (!(error instanceof MatchmakingError)) throw error;
      element("party-problem").textContent = error.message;
      element("party-problem").hidden = false;
    }
  }

  _draw() {
    const { members, leader, code, size } = /** @type {import("/sdk/index.js").Party} */ (this.party);
    element("code").textContent = code;
    element("members").replaceChildren(...members.map((member) => this._row(member, leader)));
    element("join").hidden = members.length > 1;
    element("ready").textContent = this._leads ? "Start" : members.some(({ id, ready }) => id === this._player && ready) ? "Not ready" : "Ready";
    /** @type {HTMLButtonElement} */ (element("ready")).disabled = this._leads && members.some(({ id, ready }) => id !== leader && !ready);
    element("room").textContent = members.length < size ? `Room for ${size - members.length} more.` : "The party is full.";
  }

  _row({ id, ready }, leader) {
    const row = document.createElement("li");
    const mark = id === leader ? "leads" : ready ? "ready" : "not ready";
    row.append(this._told.nameOf(id), Object.assign(document.createElement("span"), { textContent: mark }));
    if (!this._leads || id === this._player) return row;
    const out = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: "Remove" });
    out.addEventListener("click", () => this._do(() => this._parties.leave(/** @type {any} */ (this.party).id, id)));
    row.append(out);
    return row;
  }
}
