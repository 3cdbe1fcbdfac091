// The list of sessions: the worst first, one page at a time.

import { get, query } from "./api.js";
import { ago, count, el, number, percent, spark, text } from "./dom.js";

const SORTS = [
  ["drift", "most drift"], ["accuracy", "least accuracy"], ["entropy", "most entropy"], ["rollbacks", "most roll-backs"],
  ["updates", "most updates"], ["recent", "used last"],
];
const COLUMNS = ["Session", "Drift", "Accuracy", "Entropy", "Updates", "Roll-backs", "Used"];
const PAGE_SIZE = 25;
const TYPING_MS = 250;

export const address = (model, id) => `#/session/${encodeURIComponent(model)}/${encodeURIComponent(id)}`;

export function stateChip(session) {
  if (session.paused) return ["paused", "paused"];
  return [session.state, session.state === "pristine" ? "as the source" : session.state];
}

export class Sessions {
  constructor() {
    this.page = 1;
    this.rows = new Map();
    this.asked = 0;
    this.search = el("input", { type: "search", id: "search", placeholder: "part of a session’s id", autocomplete: "off", spellcheck: "false", oninput: () => this.later() });
    this.sort = el("select", { id: "sort", onchange: () => this.first() }, ...SORTS.map(([value, label]) => el("option", { value }, label)));
    this.model = el("select", { id: "model", onchange: () => this.first() }, el("option", { value: "" }, "every model"));
    this.body = el("tbody", { role: "rowgroup" });
    this.note = el("p", { class: "muted", role: "status" });
    this.before = el("button", { type: "button", class: "quiet", onclick: () => this.turn(-1) }, "‹ Previous");
    this.after = el("button", { type: "button", class: "quiet", onclick: () => this.turn(1) }, "Next ›");
    this.open = el("a", { class: "button quiet", hidden: true }, "");
    const head = el("tr", { role: "row" }, ...COLUMNS.map((name) => el("th", { role: "columnheader", scope: "col", class: name === "Session" ? null : "figure" }, name)));
    this.node = el("section", { class: "card", "aria-labelledby": "sessions-title" },
      el("header", { class: "card-head wrap" }, el("h2", { id: "sessions-title" }, "Sessions"),
        el("div", { class: "controls" },
          el("label", { class: "field" }, el("span", {}, "Search"), this.search),
          el("label", { class: "field" }, el("span", {}, "Model"), this.model),
          el("label", { class: "field" }, el("span", {}, "Order"), this.sort))),
      el("table", { role: "table", class: "sessions", "aria-labelledby": "sessions-title" }, el("thead", { role: "rowgroup" }, head), this.body),
      el("footer", { class: "card-foot" }, this.note, this.open, el("span", { class: "grow" }), this.before, this.after));
  }

  models(names) {
    const known = [...this.model.options].slice(1).map((option) => option.value);
    if (known.join("\n") === names.join("\n")) return;
    const chosen = this.model.value;
    this.model.replaceChildren(el("option", { value: "" }, "every model"), ...names.map((name) => el("option", { value: name }, name)));
    this.model.value = names.includes(chosen) ? chosen : "";
  }

  later() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.first(), TYPING_MS);
  }

  first() {
    this.page = 1;
    return this.refresh();
  }

  turn(by) {
    this.page = Math.max(1, this.page + by);
    return this.refresh();
  }

  async refresh(status = this.status) {
    this.status = status;
    this.asked += 1;
    const turn = this.asked;
    const wanted = { model: this.model.value, search: this.search.value.trim(), sort: this.sort.value, page: this.page, page_size: PAGE_SIZE };
    try {
      const list = await get(query("sessions", wanted));
      // Answers may come out of order; only the last question counts.
      if (turn === this.asked) this.show(list, wanted);
    } catch (error) {
      if (error.status === 401 && this.onrefused) this.onrefused(error);
    }
  }

  show(list, wanted) {
    this.page = list.page;
    const keys = new Set();
    const wantedRows = list.sessions.map((session) => {
      const key = JSON.stringify([session.model, session.session_id]);
      keys.add(key);
      if (!this.rows.has(key)) this.rows.set(key, new Row(session));
      const row = this.rows.get(key);
      row.show(session);
      return row.node;
    });
    for (const key of [...this.rows.keys()]) if (!keys.has(key)) this.rows.delete(key);
    const present = [...this.body.children];
    if (present.length !== wantedRows.length || present.some((node, place) => node !== wantedRows[place])) {
      const focused = document.activeElement;
      this.body.replaceChildren(...wantedRows);
      if (focused && this.body.contains(focused)) focused.focus({ preventScroll: true });
    }
    this.before.disabled = list.page <= 1;
    this.after.disabled = list.page >= list.pages;
    const from = list.total ? (list.page - 1) * PAGE_SIZE + 1 : 0;
    const stored = this.status && this.status.stored_sessions > this.status.sessions ? `; ${count(this.status.stored_sessions)} are stored, those not in memory are found by their whole id` : "";
    text(this.note, list.total ? `${from} to ${from + list.sessions.length - 1} of ${count(list.total)}${stored}` : wanted.search ? `No session in memory has “${wanted.search}” in its id` : "No sessions yet: they appear as clients open them");
    this.offer(list, wanted);
  }

  // A session that is stored and not in memory can still be opened by its name.
  offer(list, wanted) {
    const model = wanted.model || (this.status && this.status.models.length === 1 ? this.status.models[0] : "");
    const there = list.sessions.some((session) => session.session_id === wanted.search);
    this.open.hidden = !(wanted.search && model && !there);
    if (this.open.hidden) return;
    this.open.href = address(model, wanted.search);
    text(this.open, "Open it from the store");
  }
}

class Row {
  constructor(session) {
    this.id = el("a", { href: address(session.model, session.session_id) }, session.session_id);
    this.chip = el("span", { class: "chip" });
    this.about = el("span", { class: "muted about" });
    this.cells = Object.fromEntries(["drift", "accuracy", "entropy", "updates", "rollbacks", "used"].map((name) => [name, el("span", { class: "number" })]));
    this.sparks = Object.fromEntries(["drift", "accuracy", "entropy"].map((name) => [name, el("span", { class: "spark-box" })]));
    const cell = (name, label) => el("td", { role: "cell", class: `figure ${name}`, "data-label": label }, this.sparks[name], this.cells[name]);
    this.node = el("tr", { role: "row" },
      el("td", { role: "cell", class: "name" }, el("div", { class: "name-line" }, this.id, this.chip), this.about),
      cell("drift", "Drift"), cell("accuracy", "Accuracy"), cell("entropy", "Entropy"), cell("updates", "Updates"), cell("rollbacks", "Roll-backs"), cell("used", "Used"));
  }

  show(session) {
    const [state, label] = stateChip(session);
    text(this.chip, label).className = `chip ${state}`;
    text(this.about, `${session.model} · ${session.recipe}${session.drift_signal ? ` · drift of ${session.drift_signal}` : ""}`);
    text(this.cells.drift, number(session.drift));
    text(this.cells.accuracy, percent(session.labelled_accuracy ?? session.accuracy));
    this.cells.accuracy.title = session.labelled_accuracy === null ? "estimated without labels" : "by labels";
    text(this.cells.entropy, number(session.entropy));
    text(this.cells.updates, count(session.updates));
    text(this.cells.rollbacks, count(session.rollbacks)).classList.toggle("alarm", session.rollbacks > 0);
    text(this.cells.used, ago(session.last_used_at));
    for (const [name, box] of Object.entries(this.sparks)) {
      const drawn = session.outline[name] ? spark(session.outline[name], name) : null;
      box.replaceChildren(...(drawn ? [drawn] : []));
    }
  }
}
