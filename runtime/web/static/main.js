// Where the page begins: who is looking, at what, and the stream that keeps it up to date.

import { Refused, credentials, get, query, subscribe } from "./api.js";
import { repaint } from "./charts.js";
import { ago, notice, text } from "./dom.js";
import { Overview } from "./overview.js";
import { SessionView } from "./session.js";

const THEMES = { "": ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };
const LINKS = { live: "live", wait: "reconnecting", refused: "signed out" };
const STATUS_MS = 10000;

const byId = (id) => document.getElementById(id);
let status = null, view = null, stream = null, opening = 0;

// -- who is looking

const dialog = byId("signin-dialog");

function askForToken(message = "") {
  text(byId("signin-error"), message);
  byId("token").setAttribute("aria-invalid", message ? "true" : "false");
  byId("tenant").value = credentials.tenant;
  if (!dialog.open) dialog.showModal();
  byId("token").focus();
}

byId("signin").addEventListener("click", () => askForToken());
byId("signin-forget").addEventListener("click", () => {
  credentials.forget();
  byId("token").value = "";
  dialog.close();
  start();
});
byId("signin-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = byId("token").value.trim() || credentials.token;
  credentials.keep(token, byId("tenant").value.trim());
  try {
    status = await get("status");
  } catch (error) {
    credentials.forget();
    askForToken(error instanceof Refused ? refusalText(error) : "The daemon cannot be reached.");
    return;
  }
  byId("token").value = "";
  dialog.close();
  start();
});

function refusalText(error) {
  if (error.reason === "CREDENTIAL_WRONG") return "This token is unknown, revoked or expired.";
  if (error.reason === "CREDENTIAL_MISSING") return "Enter a token.";
  if (error.reason === "CREDENTIAL_MALFORMED") return "This is not a token: they begin with acc_.";
  return error.message;
}

function refused(error) {
  link("refused");
  if (error.status === 401) askForToken(credentials.token ? refusalText(error) : "");
  else notice(error.message);
}

function showStatus() {
  const role = status.closed ? [status.role, status.tenant && `for ${status.tenant}`].filter(Boolean).join(" ") : "";
  text(byId("who"), role);
  byId("signin").hidden = !status.closed;
  text(byId("signin"), credentials.token ? "Change token" : "Sign in");
  text(byId("about"), `Acclimate ${status.version}, started ${ago(status.started_at)}`);
}

// -- the stream

function link(state) {
  const pill = byId("link");
  pill.dataset.state = state;
  text(pill, LINKS[state]);
  document.body.classList.toggle("stale", state !== "live");
}

function follow(path) {
  if (stream) stream.stop();
  let busy = false;
  const mine = view;
  stream = subscribe(path, {
    state(state, error) {
      if (state === "refused") refused(error);
      else link(state);
    },
    async sample(models) {
      // A slow device skips points rather than falling behind; nobody looks at a hidden page.
      if (busy || mine !== view || document.hidden) return;
      busy = true;
      try {
        if (Date.now() / 1000 - status.at > STATUS_MS / 1000) status = await get("status");
        showStatus();
        await mine.sample(models, status);
      } catch (error) {
        if (error instanceof Refused && error.status === 401) refused(error);
      } finally {
        busy = false;
      }
    },
    events(batch) {
      if (mine === view) mine.happened(batch);
    },
  });
}

// -- what is looked at

function route() {
  const [, kind, model, id] = location.hash.split("/");
  return kind === "session" && model && id ? { model: decodeURIComponent(model), id: decodeURIComponent(id) } : null;
}

async function open() {
  opening += 1;
  const turn = opening;
  if (stream) stream.stop();
  if (view) view.destroy();
  notice("");
  const where = route();
  view = where ? new SessionView(where.model, where.id, status) : new Overview(status);
  document.title = where ? `${where.id} · Acclimate` : "Acclimate";
  byId("view").replaceChildren(view.node);
  window.scrollTo(0, 0);
  try {
    await view.begin();
  } catch (error) {
    if (turn !== opening) return;
    if (error instanceof Refused) refused(error);
    else notice("The daemon cannot be reached.");
    if (where && error.status === 404) view.leave();
    if (error.status === 404) notice(error.message);
    return;
  }
  if (turn === opening) follow(where ? query("events", { model: where.model, session: where.id }) : "events");
}

async function start() {
  try {
    status = await get("status");
  } catch (error) {
    if (view) view.destroy();
    if (stream) stream.stop();
    view = null;
    byId("view").replaceChildren();
    if (error instanceof Refused) {
      byId("signin").hidden = error.status !== 401;
      refused(error);
    } else {
      link("wait");
      setTimeout(start, 2000);
    }
    return;
  }
  showStatus();
  await open();
}

// -- colours

function theme(chosen) {
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  try { localStorage.setItem("acclimate.theme", chosen); } catch { /* private windows may refuse */ }
  const [sign, label] = THEMES[chosen];
  text(byId("theme"), sign);
  byId("theme").setAttribute("aria-label", `Colours: ${label}`);
  byId("theme").title = `Colours: ${label}`;
  repaint();
}

byId("theme").addEventListener("click", () => {
  const order = Object.keys(THEMES);
  theme(order[(order.indexOf(document.documentElement.dataset.theme || "") + 1) % order.length]);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

window.addEventListener("hashchange", () => { if (status) open(); });
theme(document.documentElement.dataset.theme || "");
start();
