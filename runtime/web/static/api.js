// The daemon's API: requests with the token of this tab, and a stream that is taken up again when it breaks.

const TOKEN = "acclimate.token", TENANT = "acclimate.tenant";
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

export class Refused extends Error {
  constructor(status, told) {
    super(told.message || `the daemon answered ${status}`);
    this.status = status;
    this.reason = told.reason || "";
    this.metadata = told.metadata || {};
  }
}

export const credentials = {
  get token() { return sessionStorage.getItem(TOKEN) || ""; },
  get tenant() { return sessionStorage.getItem(TENANT) || ""; },
  keep(token, tenant) {
    sessionStorage.setItem(TOKEN, token);
    sessionStorage.setItem(TENANT, tenant);
  },
  forget() {
    sessionStorage.removeItem(TOKEN);
    sessionStorage.removeItem(TENANT);
  },
};

function headers(more = {}) {
  const all = { ...more };
  if (credentials.token) all["Authorization"] = `Bearer ${credentials.token}`;
  if (credentials.tenant) all["Acclimate-Tenant"] = credentials.tenant;
  return all;
}

async function refusal(response) {
  let told = {};
  try { told = (await response.json()).error || {}; } catch { /* not from the API */ }
  return new Refused(response.status, told);
}

async function send(path, options) {
  const response = await fetch(`api/${path}`, { credentials: "omit", cache: "no-store", ...options });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

export function query(path, fields) {
  const filled = Object.entries(fields).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return filled.length ? `${path}?${new URLSearchParams(filled)}` : path;
}

export const sessionPath = (model, id) => `models/${encodeURIComponent(model)}/sessions/${encodeURIComponent(id)}`;

export const get = (path, signal) => send(path, { headers: headers(), signal });

export const post = (path, etag) => send(path, { method: "POST", headers: headers(etag ? { "If-Match": etag } : {}) });

// Calls handlers[name](document) for every message until `stop()`; handlers.state("live" | "wait" | "refused", error).
export function subscribe(path, handlers) {
  const stopped = new AbortController();
  run(path, handlers, stopped.signal);
  return { stop: () => stopped.abort() };
}

async function run(path, handlers, signal) {
  for (let tries = 0; !signal.aborted; tries += 1) {
    try {
      const response = await fetch(`api/${path}`, { headers: headers(), credentials: "omit", cache: "no-store", signal });
      if (!response.ok) throw await refusal(response);
      handlers.state("live");
      tries = 0;
      await read(response.body, handlers);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && [400, 401, 403, 404].includes(error.status)) {
        handlers.state("refused", error);
        return;
      }
    }
    if (signal.aborted) return;
    handlers.state("wait");
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]));
  }
}

async function read(body, handlers) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { done, value } = await reader.read();
    if (done) return;
    const messages = (rest + value).split("\n\n");
    rest = messages.pop();
    messages.forEach((message) => dispatch(message, handlers));
  }
}

function dispatch(message, handlers) {
  const fields = Object.fromEntries(message.split("\n").map((line) => {
    const place = line.indexOf(":");
    return [line.slice(0, place), line.slice(place + 1).trim()];
  }));
  if (fields.event === "refused") throw new Refused(401, JSON.parse(fields.data));
  if (fields.event && handlers[fields.event]) handlers[fields.event](JSON.parse(fields.data));
}
