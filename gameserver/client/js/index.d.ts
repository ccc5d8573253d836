/** Types of Warmfleet's browser SDK. */

/** Times in ms; a test may move it. */
export interface Clock {
  now(): number;
  setTimeout(run: () => void, ms: number): any;
  clearTimeout(timer: any): void;
}

export type TicketState = "queued" | "searching" | "proposed" | "placing" | "assigned" | "cancelled" | "timed_out" | "failed";

export interface Ticket {
  id: string;
  queue: string;
  state: TicketState;
  createdAt?: string;
  players: { id: string; attributes?: Record<string, unknown>; latencies?: Record<string, number>; latencyTokens?: string[] }[];
  match?: string;
  /** While its state is `proposed`: who has accepted the match, of how many, until when. */
  acceptance?: { accepted: number; players: number; deadline: string };
  /** While it waits: how much longer those like it did. */
  estimatedWait?: Wait;
  /** The asking player's. */
  assignment?: Assignment;
  reason?: string;
}

/** In s. */
export interface Wait {
  /** Half waited no longer. */
  seconds: number;
  /** Nine of ten waited no longer. */
  within: number;
}

/** What a player brings to a party. */
export interface Brings {
  attributes?: Record<string, unknown>;
  /** Region to round trip in ms. */
  latencies?: Record<string, number>;
}

export interface Party {
  id: string;
  /** Lets players in. */
  code: string;
  leader: string;
  /** Members at most. */
  size: number;
  version: number;
  members: { id: string; ready: boolean; attributes: Record<string, unknown>; latencies: Record<string, number> }[];
  /** Under which it waits for its match. */
  ticket?: string;
  queue?: string;
  /** The ticket before, which is over. */
  lastTicket?: string;
}

/** Why a ticket waits. */
export interface Explanation {
  ticket: string;
  state: TicketState;
  verdict: "few-players" | "rule" | "teams" | "paused" | "acceptance" | "server" | "over";
  /** The same in a sentence. */
  detail: string;
  /** Which of `rules` keeps most away. */
  blocking?: number;
  waiting?: { tickets: number; lookedAt: number };
  candidates?: { tickets: number; players: number; wanted: number };
  rules: { rule: string; limit?: number; nextLimit?: number; relaxesIn?: number; fits: number; fitsNext: number; alone: number; nearest?: number }[];
  supply: { free?: number; waits: boolean };
  estimatedWait?: Wait;
}

/** A session as it stands. */
export interface SessionRecord {
  id: string;
  state: "pending" | "live" | "draining" | "ended";
  fleet: string;
  queue?: string;
  epoch: number;
  seats: { index: number; player: string; team: string }[];
  freeSeats: number;
  checkpointTick: number;
  /** What the game ended it with. */
  results?: any;
}

export interface Queue {
  name: string;
  /** How many wait. */
  depth: number;
  playersPerMatch: number;
  teams: Record<string, number>;
  partyMax: number;
  /** `error`: half of the estimates were off by no more. */
  estimatedWait?: Wait & { error?: number };
}

/** Where a session is, and the token that lets its player in. */
export interface Assignment {
  session: string;
  /** Grows by one whenever the session moves. */
  epoch: number;
  server: string;
  host: string;
  ports: Record<string, number>;
  /** The port `websocket` speaks TLS. */
  secure?: boolean;
  seat: { index: number; team: string };
  token: string;
  temperature?: "shelf" | "buffer" | "cold";
}

export interface Welcome {
  type: "welcome";
  version: number;
  seat: number;
  tickRateHz: number;
  tick: number;
  epoch: number;
  room: { session: string; player: string; team: string; game: string; schema: unknown; inputs: unknown; info: any };
}

export interface SnapshotMessage {
  type: "snapshot";
  ackInput: number;
  tick: number;
  /** 0 for a full snapshot. */
  baseline: number;
  body: Uint8Array;
}

export interface EventMessage {
  type: "event";
  seq: number;
  tick: number;
  data: Record<string, any>;
}

export type ServerMessage =
  | Welcome
  | SnapshotMessage
  | EventMessage
  | { type: "pong"; clientMs: number; serverTick: number }
  | { type: "migrate"; data: Record<string, any> }
  | { type: "bye"; code: number; reason: string };

/** Why it ended; `code` is a close code of the protocol, or -1 where no match came about. */
export interface End {
  code: number;
  name: string;
  reason: string;
}

/** One row of a table: its id and the game's fields. */
export type Row = { id: number } & Record<string, any>;

/** Every table at one tick; never changes. */
export interface World {
  rows(table: string): Map<number, Row>;
}

export interface SnapshotSeen {
  tick: number;
  world: World;
  /** The highest of the player's inputs that the state contains. */
  ackInput: number;
}

export interface ConnectionHandler {
  welcome?(welcome: Welcome, connection: Connection): void;
  snapshot?(snapshot: SnapshotSeen, connection: Connection): void;
  event?(event: EventMessage, connection: Connection): void;
  migrate?(data: Record<string, any>, connection: Connection): void;
  end?(end: End, connection: Connection): void;
}

export interface LinkHandler {
  /** A connection has taken over, with its first snapshot. */
  connected(connection: Connection, assignment: Assignment): void;
  snapshot(snapshot: SnapshotSeen, connection: Connection): void;
  event(event: EventMessage): void;
  /** The server asks to move; the connection goes on meanwhile. */
  moving(why: string): void;
  /** The connection is gone; another is being looked for. */
  lost(end: End): void;
  over(end: End): void;
}

export interface PredictionRules<S = any> {
  /** The game's step for one input; pure. */
  apply(state: S, input: Record<string, any>, dtS: number): S;
  /** Numeric fields whose corrections are smoothed. */
  smooth: string[];
  /** Corrections larger than this are shown at once. */
  snap: number;
}

export interface PlayOptions {
  attributes?: Record<string, unknown>;
  /** Region to round trip in ms. */
  latencies?: Record<string, number>;
  /** Predict the player's own row (its id is the seat) of a table. */
  predict?: PredictionRules & { table: string };
  interpolate?: {
    /** Float fields that are angles in radians. */
    angles?: string[];
    /** A float field that changes by more between two snapshots jumps. */
    teleport?: number;
  };
}

export type Phase = "idle" | "queueing" | "connecting" | "playing" | "reconnecting" | "over" | "failed";

export interface ClientOptions {
  baseUrl: string;
  token: string;
  player: string;
  network?: NetSim | null;
  clock?: Clock;
  fetch?: typeof globalThis.fetch;
  WebSocket?: typeof globalThis.WebSocket;
}

/** From a ticket to a running match. */
export class Warmfleet {
  constructor(options: ClientOptions);
  readonly player: string;
  readonly phase: Phase;
  readonly ticket: Ticket | null;
  readonly assignment: Assignment | null;
  readonly welcome: Welcome | null;
  readonly seat: number;
  /** What the match ended with, once it has. */
  readonly results: Record<string, any> | null;
  /** Of the newest snapshot. */
  readonly tick: number;
  readonly snapshots: number;
  /** The tick, with its fraction, at which `rows` shows others. */
  readonly shownTick: number;
  readonly latencyMs: number;
  readonly jitterMs: number;
  /** How far in the past others are shown. */
  readonly delayMs: number;
  /** By how much the newest snapshot moved the predicted own row. */
  readonly correction: number;
  readonly reconnects: number;
  readonly connection: Connection | null;
  readonly matchmaking: Matchmaking;

  on(name: "phase", listener: (phase: Phase, why: string) => void): () => void;
  on(name: "ticket", listener: (ticket: Ticket) => void): () => void;
  on(name: "welcome", listener: (welcome: Welcome) => void): () => void;
  on(name: "snapshot", listener: (snapshot: SnapshotSeen) => void): () => void;
  on(name: "event", listener: (event: EventMessage) => void): () => void;
  on(name: "moving", listener: (why: string) => void): () => void;

  /** Queue up, wait for a match, play it; settles when the match is over, or will not be. */
  play(queue: string, options?: PlayOptions): Promise<End>;
  /** Wait for the match of a ticket that is there already, a party's, and play it. */
  playTicket(ticket: string, options?: PlayOptions): Promise<End>;
  /** Accept or decline the match that is proposed. */
  accept(accept?: boolean): Promise<void>;
  /** Come back to a match, after the page was loaded anew. */
  rejoin(session: string, options?: PlayOptions): Promise<End>;
  /** Leave the queue or the match. */
  leave(): void;
  /** Move time on, once per frame: sends the inputs that are due, one per tick of the server. */
  frame(sample: () => Record<string, number | boolean>): void;
  /** The player's own row, predicted. */
  me(): Row | null;
  /** A table's rows by id, interpolated. */
  rows(table: string): Map<number, Row>;
}

export class MatchmakingError extends Error {
  constructor(message: string, status?: number);
  /** HTTP's; 0 where the matchmaker could not be reached. */
  readonly status: number;
}

/** Where a region's round trip is measured. */
export interface Region {
  region: string;
  udp?: string;
  http?: string;
}

/** A region's answer; `token` goes into a ticket's `latencyTokens`. */
export interface MeasuredRegion {
  region: string;
  rttMs: number;
  token: string;
}

/** Measure round trips at the regions' beacons; the nearest first, those that did not answer left out. */
export function measureRegions(
  regions: Region[],
  player: string,
  options?: { samples?: number; fetch?: typeof globalThis.fetch },
): Promise<MeasuredRegion[]>;

export class Matchmaking {
  constructor(options: {
    baseUrl: string;
    token?: string;
    fetch?: typeof globalThis.fetch;
    WebSocket?: typeof globalThis.WebSocket;
    clock?: Clock;
  });
  developmentPlayer(name?: string): Promise<{ player: string; token: string }>;
  createTicket(queue: string, players: Ticket["players"]): Promise<Ticket>;
  readonly parties: Parties;
  ticket(ticket: string): Promise<Ticket>;
  cancelTicket(ticket: string): Promise<void>;
  accept(ticket: string, accept?: boolean): Promise<Ticket>;
  explanation(ticket: string): Promise<Explanation>;
  session(session: string): Promise<SessionRecord>;
  queues(): Promise<Queue[]>;
  regions(): Promise<{ region: string; udp?: string; http?: string }[]>;
  regions(): Promise<Region[]>;
  seat(session: string): Promise<Assignment>;
  states(ticket: string, signal?: AbortSignal): AsyncGenerator<Ticket>;
}

/** Players who gather by a code, and are queued by their leader as one ticket. */
export class Parties {
  constructor(matchmaking: Matchmaking);
  create(brings?: Brings): Promise<Party>;
  join(code: string, brings?: Brings): Promise<Party>;
  mine(): Promise<Party | null>;
  ready(party: string, player: string, ready: boolean, brings?: Brings): Promise<Party>;
  leave(party: string, player: string): Promise<void>;
  queue(party: string, queue: string): Promise<Ticket>;
  states(party: string, signal?: AbortSignal): AsyncGenerator<Party>;
}

export class Connection {
  constructor(options: {
    url: string;
    token: string;
    handler: ConnectionHandler;
    spectator?: boolean;
    clock?: Clock;
    network?: NetSim | null;
    WebSocket?: typeof globalThis.WebSocket;
  });
  readonly url: string;
  readonly welcome: Welcome | null;
  readonly world: World | null;
  readonly tick: number;
  readonly ackInput: number;
  readonly snapshots: number;
  readonly latencyMs: number;
  /** When the newest snapshot came. */
  readonly seenAtMs: number;
  /** What the match ended with, once it has. */
  readonly results: Record<string, any> | null;
  readonly ended: boolean;
  sendInput(values: Record<string, number | boolean>, viewTick?: number): { seq: number; values: Record<string, any> };
  serverTick(nowMs: number): number;
  /** Give the seat up. */
  leave(): void;
  /** Close without a word: the seat is kept. */
  close(): void;
}

export class Link {
  constructor(options: {
    assignment: Assignment;
    seat(session: string): Promise<Assignment>;
    handler: LinkHandler;
    secure?: boolean;
    clock?: Clock;
    random?: () => number;
    spectator?: boolean;
    network?: NetSim | null;
    WebSocket?: typeof globalThis.WebSocket;
  });
  readonly connection: Connection | null;
  readonly assignment: Assignment;
  readonly over: boolean;
  readonly reconnects: number;
  leave(): void;
}

export class Prediction<S extends Record<string, any> = any> {
  constructor(rules: PredictionRules<S> & { dtS: number });
  readonly state: S | null;
  readonly pending: number;
  readonly lastCorrection: number;
  push(seq: number, input: Record<string, any>): void;
  reconcile(state: S, ackInput: number, nowMs: number): void;
  reset(): void;
  view(nowMs: number, fraction?: number): S | null;
}

export class Interpolation {
  constructor(options: { tickRateHz: number; angles?: string[]; teleport?: number });
  readonly delayMs: number;
  readonly jitterMs: number;
  reset(): void;
  push(tick: number, world: World, nowMs: number): void;
  advance(nowMs: number): number;
  rows(table: string): Map<number, Row>;
}

export class NetSim {
  constructor(conditions?: {
    lossPercent?: number;
    delayMs?: number;
    jitterMs?: number;
    duplicatePercent?: number;
    random?: () => number;
    clock?: Clock;
  });
  static fromQuery(query: URLSearchParams): NetSim | null;
  path<T>(deliver: (message: T) => void): (message: T) => void;
}

/** Dice that fall alike for the same seed. */
export function seededRandom(seed: number): () => number;

export class ProtocolError extends Error {}

export const CloseCode: Readonly<
  Record<
    | "NORMAL" | "GOING_AWAY" | "MALFORMED" | "UNAUTHORIZED" | "VERSION" | "TOO_SLOW" | "FLOOD"
    | "SUPERSEDED" | "KICKED" | "GAME_ERROR" | "TIMEOUT" | "FULL" | "FENCED",
    number
  >
>;

export function closeName(code: number): string;
/** An angle's equal from −π to π. */
export function turn(angle: number): number;
