import { ask, field, h } from "./dom.js";

/** An error response. `problems` holds the `loc` and `msg` of each invalid value. */
export class ApiError extends Error {
  constructor(status, detail) {
    // A plain message mentions its fields: "A movie with this title already exists".
    const mentioned = () => detail.match(/\b(title|imdb_id|tmdb_id)\b/g) ?? [];
    const problems = Array.isArray(detail) ? detail : [{ loc: mentioned(), msg: detail }];
    super(problems.map(({ msg }) => msg).join(". "));
    Object.assign(this, { status, problems });
  }
}

/**
 * Call the API. Resolves to the body (null for a 204), the ETag, the total of a list, and the
 * text that was searched, if it is not the one that was sent.
 * Retries a read until the service is back, but not a write: it may have been stored.
 */
export async function call(path, { method = "GET", body, etag, signal } = {}) {
  for (let pause = 500; ; pause = Math.min(2 * pause, 5000)) {
    const key = sessionStorage.getItem("key");
    const headers = { ...(body && { "Content-Type": "application/json" }),
      ...(etag && { "If-Match": etag }), ...(key && method !== "GET" && { "X-API-Key": key }) };
    const request = { method, headers, signal, body: body && JSON.stringify(body) };
    const response = await fetch(path, request).catch(unlessAborted);
    if (response?.ok) {
      report("");
      return { data: response.status === 204 ? null : await response.json(),
        etag: response.headers.get("ETag"), total: Number(response.headers.get("X-Total-Count")),
        searchedFor: decodeURIComponent(response.headers.get("X-Searched-For") ?? "") };
    }
    // A proxy's error page is not JSON.
    const { detail } = await response?.json().catch(unlessAborted) ?? {};
    const lost = !response || [502, 503, 504].includes(response.status);
    if (response?.status === 401) await replaceKey(key, detail);
    else if (!lost || method !== "GET")
      throw new ApiError(response?.status, detail ?? "The service cannot be reached, try again");
    else {
      report(`${detail ?? "The service cannot be reached"}. Trying again …`);
      await sleep(pause, signal);
    }
  }
}

/** Resolve to undefined instead of a 404. */
export const ifFound = (calling) => calling.catch((error) => {
  if (error.status !== 404) throw error;
});

let paths;

/** Tell whether the OpenAPI document lists a path. Without a document every path counts as served. */
export async function serves(path) {
  paths ??= fetch("openapi.json").then((response) => response.json()).catch(() => ({}));
  const served = (await paths).paths;
  return !served || path in served;
}

function unlessAborted(error) {
  if (error.name === "AbortError") throw error;
}

function report(text) {
  const place = document.getElementById("connection");
  if (place.textContent !== text) place.textContent = text;
}

// Tabs share the API key over a channel, because localStorage would keep it after they are closed.
const tabs = new BroadcastChannel(`API key of ${location.pathname}`);
tabs.addEventListener("message", ({ data }) => {
  const key = sessionStorage.getItem("key");
  if (data === null) return key && tabs.postMessage(key);
  sessionStorage.setItem("key", data);
  document.getElementById("key")?.closest("dialog").close();
});
if (!sessionStorage.getItem("key")) tabs.postMessage(null);

/** Ask for another key than the refused one, unless a tab has one already. */
async function replaceKey(refused, detail) {
  const isReplaced = () => sessionStorage.getItem("key") !== refused;
  if (isReplaced()) return;
  const input = h("input", { type: "password", required: "", autocomplete: "off" });
  field("API key", "key", input, "kept until you close this page's tabs");
  const key = await ask("A key is needed", "Use key", h("p", {}, `${detail}.`), input);
  if (key !== null) {
    sessionStorage.setItem("key", key);
    tabs.postMessage(key);
  } else if (!isReplaced()) throw new ApiError(401, detail);
}

export const sleep = (milliseconds, signal) => new Promise((resolve, reject) => {
  setTimeout(resolve, milliseconds);
  signal?.addEventListener("abort", () => reject(signal.reason));
});
