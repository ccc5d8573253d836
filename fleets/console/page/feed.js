// The stream: server-sent events by fetch, since EventSource sends no bearer token. Keeps the state, and reconnects for ever.

/** Splits a stream of bytes into events {event, data}. */
export async function* events(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body) {
    rest += decoder.decode(chunk, { stream: true });
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const event = {};
      for (const line of part.split("\n")) {
        const at = line.indexOf(": ");
        event[line.slice(0, at)] = line.slice(at + 2);
      }
      yield event;
    }
  }
}

/** Applies what has changed to a state, in place. */
export function apply(state, changed) {
  for (const [section, part] of Object.entries(changed)) {
    const rows = (state[section] ??= {});
    for (const [id, fields] of Object.entries(part.set ?? {})) rows[id] = { ...rows[id], ...fields };
    for (const id of part.gone ?? []) delete rows[id];
  }
}

/** What a server says in refusing. */
async function told(reply) {
  const { detail } = await reply.json().catch(() => ({}));
  return typeof detail === "string" ? detail : `the server answers ${reply.status}`;
}

const HISTORY = 600;
const EVENTS = 200;

export class Feed {
  state = {};
  events = [];
  series = [];
  points = [];
  role = "";

  /** `refused` hears why, when the token is not taken. */
  constructor(token, { changed, status, refused }) {
    this.token = token;
    this.changed = changed;
    this.status = status;
    this.refused = refused;
  }

  /** Follows until the token is refused. */
  async run() {
    for (let wait = 500; ; wait = Math.min(2 * wait, 10_000)) {
      try {
        const reply = await fetch("/v1/console/stream", { headers: this.#headers(), cache: "no-store" });
        if (reply.status === 401 || reply.status === 403) return this.refused(await told(reply));
        if (!reply.ok) throw new Error(`${reply.status}`);
        wait = 500;
        for await (const { event, data } of events(reply.body)) this.#take(event, data);
      } catch {
        // Whatever broke the stream, it is begun anew.
      }
      this.status("reconnecting", "lost");
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  /** Asks for, or does, something; returns its JSON. Throws what the server says. */
  async call(method, path, body) {
    const headers = { ...this.#headers(), "Content-Type": "application/json" };
    const reply = await fetch(`/v1/console/${path}`, { method, headers, body: body && JSON.stringify(body) });
    if (reply.ok) return reply.status === 204 ? null : reply.json();
    throw new Error(await told(reply));
  }

  #headers() {
    return { Authorization: `Bearer ${this.token}` };
  }

  #take(event, data) {
    if (event === "role") {
      this.role = data;
      return this.status(data === "viewer" ? "live (view only)" : "live", "live");
    }
    const told = JSON.parse(data);
    if (event === "state") Object.assign(this, told);
    else {
      apply(this.state, told.changed);
      this.events = [...this.events, ...told.events].slice(-EVENTS);
      if (told.point) this.points = [...this.points, told.point].slice(-HISTORY);
    }
    this.changed();
  }
}
