/**
 * Round trips to the regions' beacons, measured and signed by them, for a ticket's `latencyTokens`.
 *
 * Over HTTP, since a page has no UDP: the first answer opens the connection and brings a cookie, the second sends it back, and the beacon times what lies between.
 */

const SAMPLES = 5;
const TIMEOUT_MS = 2000;

/**
 * @typedef {{region: string, http?: string, udp?: string}} Region as `GET /v1/regions` lists them
 * @typedef {{region: string, rttMs: number, token: string}} Measured
 */

/**
 * Measure all regions at once. The nearest comes first; regions that did not answer are not in it.
 * @param {Region[]} regions
 * @param {string} player its id, as the ticket will have it
 * @param {{samples?: number, fetch?: typeof globalThis.fetch}} [options]
 * @returns {Promise<Measured[]>}
 */
export async function measureRegions(regions, player, { samples = SAMPLES, fetch = (...request) => globalThis.fetch(...request) } = {}) {
  const found = await Promise.all(regions.filter((region) => region.http).map((region) => measure(region, player, samples, fetch)));
  return found.filter((one) => one !== null).sort((a, b) => a.rttMs - b.rttMs);
}

async function measure(region, player, samples, fetch) {
  let best = null;
  for (let sample = 0; sample < samples; sample++) {
    try {
      const nonce = randomNonce();
      const { cookie } = await ask(region.http, { nonce }, fetch);
      const measured = await ask(region.http, { nonce, cookie, player }, fetch);
      if (best === null || measured.rttMs < best.rttMs) best = measured;
    } catch {
      if (best === null && sample > 0) return null; // twice nothing: it is not there
    }
  }
  return best;
}

async function ask(base, query, fetch) {
  const url = `${base.replace(/\/$/, "")}/v1/beacon?${new URLSearchParams(query)}`;
  const reply = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!reply.ok) throw new Error(`the beacon answered ${reply.status}`);
  return reply.json();
}

function randomNonce() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
