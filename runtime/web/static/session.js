// One session: its history, its budget, its snapshots, and what can be done to it.

import { get, post, query, sessionPath } from "./api.js";
import { Chart, Track } from "./charts.js";
import { ago, bytes, clock, confirmed, count, el, moment, notice, number, percent, text } from "./dom.js";
import { Events } from "./events.js";
import { TIMELINE } from "./models.js";
import { stateChip } from "./sessions.js";

const SIGNALS = ["entropy", "confidence", "statistics", "predictions", "parameters"];
const CHARTS = [
  { title: "Entropy", hint: "mean of recent answers, nats", lines: [{ field: "entropy", label: "Entropy", colour: "entropy", format: number }] },
  {
    title: "Accuracy", hint: "estimated without labels, and by labels where there are any",
    lines: [{ field: "accuracy", label: "Estimated", colour: "accuracy", format: percent }, { field: "labelled_accuracy", label: "By labels", colour: "updates", format: percent, dash: [5, 3] }], share: true,
  },
  { title: "Drift", hint: "by signal; 0 is as the source", lines: SIGNALS.map((name, place) => ({ field: `drift_${name}`, label: name, colour: `signal-${place}`, format: number })) },
  { title: "Updates, restorations and roll-backs", hint: "steps over time", lines: TIMELINE.map((line) => ({ ...line, format: count })), bars: true },
];
const WAIT = "Operators may look and not act: sign in as a tenant or administrator.";
const SOON_MS = 250;

export class SessionView {
  constructor(model, id, status) {
    this.path = sessionPath(model, id);
    this.name = { model, id };
    this.may = status.may;
    this.etag = "";
    this.gone = false;
    this.track = new Track(CHARTS.flatMap((chart) => chart.lines.map((line) => line.field)));
    this.charts = CHARTS.map((chart) => new ChartCard(chart));
    this.events = new Events("Events", false);
    this.chip = el("span", { class: "chip" });
    this.about = el("p", { class: "muted" });
    this.facts = el("dl", { class: "facts" });
    this.meter = el("meter", { min: 0, "aria-label": "Adaptation budget saved up" });
    this.budget = el("p", { class: "muted" });
    this.snapshots = el("ul", { class: "snapshots" });
    this.buttons = {
      pause: this.button("pause", "Pause", () => this.act(this.paused ? "resume" : "pause")),
      snapshot: this.button("snapshot", "Snapshot", () => this.act("snapshot")),
      reset: this.button("reset", "Reset", () => this.reset(), "danger"),
    };
    this.node = el("div", { class: "session-view" },
      el("a", { href: "#/", class: "back" }, "‹ All sessions"),
      el("header", { class: "session-head" },
        el("div", {}, el("h1", {}, id, " ", this.chip), this.about),
        el("div", { class: "actions", role: "group", "aria-label": "Actions" }, ...Object.values(this.buttons))),
      this.may.length ? null : el("p", { class: "muted", id: "may-not" }, WAIT),
      el("div", { class: "charts" }, ...this.charts.map((chart) => chart.node)),
      el("div", { class: "columns" },
        el("section", { class: "card", "aria-label": "Figures" }, el("header", { class: "card-head" }, el("h2", {}, "Figures")), this.facts,
          el("h3", { class: "sub" }, "Budget"), this.meter, this.budget, el("h3", { class: "sub" }, "Snapshots"), this.snapshots),
        this.events.node));
  }

  button(action, label, act, kind = "") {
    const may = this.may.includes(action);
    return el("button", { type: "button", class: kind, "data-action": action, disabled: !may, title: may ? null : WAIT, "aria-describedby": may ? null : "may-not", onclick: act }, label);
  }

  async begin() {
    await this.load(true);
    const points = await get(`${this.path}/history`);
    this.track.begin(points);
    this.charts.forEach((chart) => chart.show(this.track));
  }

  async load(wake = false) {
    try {
      this.show(await get(query(this.path, { wake: wake ? 1 : "" })));
    } catch (error) {
      if (error.status !== 404 || wake) throw error;
      this.leave();
    }
  }

  async sample() {
    if (this.gone) return;
    await this.load();
    if (this.gone) return;
    const newest = this.track.at.length ? this.track.at[this.track.at.length - 1] : 0;
    const points = await get(`${this.path}/history?after=${newest}`);
    if (newest) this.track.add(points);
    else this.track.begin(points);
    this.charts.forEach((chart) => chart.show(this.track));
  }

  happened({ events, missed }) {
    this.events.add(events, missed);
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.load().catch(() => undefined), SOON_MS);
  }

  leave() {
    this.gone = true;
    Object.values(this.buttons).forEach((button) => { button.disabled = true; });
    text(this.chip, "not in memory").className = "chip";
    notice("This session is deleted, expired, or rests in the store. Reload the page to bring it back from there.");
  }

  async act(action, path = `${this.path}/${action}`) {
    notice("");
    const pressed = Object.values(this.buttons);
    pressed.forEach((button) => { button.setAttribute("aria-busy", "true"); });
    try {
      this.show(await post(path, action === "restore" ? this.etag : ""));
    } catch (error) {
      notice(`${action} was refused: ${error.message}`);
    } finally {
      pressed.forEach((button) => { button.removeAttribute("aria-busy"); });
    }
  }

  async reset() {
    const yes = await confirmed(`Reset ${this.name.id}?`, "It answers as the source model again, and what it has learnt is lost. Take a snapshot first if it may be wanted back.", "Reset");
    if (yes) await this.act("reset");
  }

  show({ session, snapshots, events }) {
    this.etag = session.etag;
    this.paused = session.paused;
    const [state, label] = stateChip(session);
    text(this.chip, label).className = `chip ${state}`;
    text(this.about, `${session.model} · ${session.recipe} · version ${session.version} · opened ${moment(session.created_at)} · used ${ago(session.last_used_at)}`);
    text(this.buttons.pause, session.paused ? "Resume" : "Pause");
    this.showFacts(session);
    this.meter.max = Math.max(session.budget.capacity_ms, 1);
    this.meter.value = session.budget_available_ms;
    text(this.budget, `${count(session.budget_available_ms)} of ${count(session.budget.capacity_ms)} ms saved up, ${count(session.budget.refill_ms_per_s)} ms/s come in; ${count(session.adaptation_ms)} ms spent`);
    this.showSnapshots(snapshots);
    if (!this.told) this.events.begin(events);
    this.told = true;
  }

  showFacts(session) {
    const skipped = Object.entries(session.skipped).map(([reason, times]) => `${count(times)} ${reason}`).join(", ");
    const facts = [
      ["Requests", `${count(session.requests)}, ${count(session.samples)} samples`],
      ["Updates", count(session.updates)],
      ["Roll-backs", count(session.rollbacks)],
      ["Restorations", count(session.restorations)],
      ["Steps skipped", skipped || "none"],
      ["Waiting to be learnt from", `${count(session.buffered)} samples`],
      ["Mean entropy", `${number(session.mean_entropy)} nats`],
      ["Mean confidence", percent(session.mean_confidence)],
      ["Estimated accuracy", percent(session.estimated_accuracy)],
      ["By labels", session.labelled ? `${percent(session.labelled_correct / session.labelled)} of ${count(session.labelled)}` : "no labels"],
      ["Distance from the source", number(session.theta_distance, 4)],
      ["State", bytes(session.state_bytes)],
      ["Closed when idle for", session.ttl_seconds === null ? "never" : `${count(session.ttl_seconds)} s`],
    ];
    this.facts.replaceChildren(...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  showSnapshots(snapshots) {
    const shown = snapshots.map((kept) => kept.snapshot_id).join("\n");
    if (shown === this.shownSnapshots) return;
    this.shownSnapshots = shown;
    if (!snapshots.length) {
      this.snapshots.replaceChildren(el("li", { class: "muted" }, "none are kept"));
      return;
    }
    this.snapshots.replaceChildren(...snapshots.map((kept) => {
      const path = `${this.path}/snapshots/${encodeURIComponent(kept.snapshot_id)}/restore`;
      const restore = this.button("restore", "Restore", () => this.act("restore", path), "quiet small");
      restore.setAttribute("aria-label", `Restore snapshot ${kept.snapshot_id}`);
      return el("li", {}, el("span", { class: "snapshot-id", title: kept.snapshot_id }, kept.snapshot_id), el("span", { class: "muted" }, `version ${kept.version}, ${clock(kept.created_at)}, ${bytes(kept.nbytes)}`), restore);
    }));
  }

  destroy() {
    clearTimeout(this.soon);
    this.charts.forEach((chart) => chart.destroy());
  }
}

class ChartCard {
  constructor({ title, hint, lines, share, bars }) {
    this.lines = lines;
    this.chart = new Chart(lines, { height: 150, axes: true, share, bars });
    this.values = lines.map((line) => el("b", {}));
    this.legend = el("p", { class: "legend" }, ...lines.map((line, place) => el("span", { class: `key ${line.colour}` }, this.values[place], lines.length > 1 ? ` ${line.label}` : "")));
    this.node = el("section", { class: "card chart-card", "aria-label": title }, el("header", { class: "card-head" }, el("h2", {}, title), el("span", { class: "muted" }, hint)), this.legend, this.chart.box);
    this.chart.onpoint = (point) => this.tell(point);
  }

  show(track) {
    this.track = track;
    this.chart.set(track);
    this.tell(null);
  }

  // The values under the pointer, or the latest; of steps, how many there were.
  tell(point) {
    this.lines.forEach((line, place) => {
      const column = this.track ? this.track.series[line.field] : [];
      const known = column.filter((value) => value !== null);
      const latest = this.chart.options.bars ? known.reduce((sum, value) => sum + value, 0) : known[known.length - 1];
      text(this.values[place], line.format(point ? point.values[place] : latest ?? null));
    });
  }

  destroy() {
    this.chart.destroy();
  }
}
