"use strict";
/* Requests to the server of `tlcli label`. Each carries the token of the page's address. */

/** Return 16 random hexadecimal digits. */
function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const token = new URL(document.currentScript.src).searchParams.get("token");
/** The name of this tab, so that the server gives two tabs different images. */
const tab = randomName();
const TIMEOUT = 30_000; // milliseconds
let serial = 0;

/** A request that failed: `status` is 0 if there was no answer. */
class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }

  /** Whether the same request can succeed later. */
  get temporary() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Send a request and return the answer, with the number of the request as `serial`. */
async function request(path, settings = {}) {
  const number = ++serial;
  const headers = { Authorization: `Bearer ${token}`, ...(settings.body && { "Content-Type": "application/json" }), ...settings.headers };
  let response, answer;
  try {
    response = await fetch(path, { ...settings, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
    answer = await response.json();
  } catch {
    if (!response || response.ok) throw new RequestError("The connection to tlcli was lost.", 0);
  }
  if (!response.ok) throw new RequestError(reason(response.status, answer), response.status);
  return { ...answer, serial: number };
}

function reason(status, answer) {
  if (status === 401 || status === 403) return "tlcli was restarted. Open the address that it printed.";
  return answer?.error?.message ?? `The server answered with status ${status}.`;
}

const get = (path, query = {}) => request(`${path}?${new URLSearchParams(query)}`);
/** Send a change. It may be sent again with the same key if there was no answer: it is made once. */
const post = (path, body, key) => request(path, { method: "POST", body: JSON.stringify(body), headers: { "Idempotency-Key": key } });

/** Return the address of an image whose longer side has at most `side` pixels. */
const imageAddress = (id, side) => `/image/${id}?side=${side}&token=${encodeURIComponent(token)}`;
