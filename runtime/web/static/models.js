// A card for each model: figures, three lines and a timeline.

import { get } from "./api.js";
import { Chart, Track } from "./charts.js";
import { count, el, number, percent, span, text } from "./dom.js";

const PANELS = [
  { key: "entropy", label: "Entropy", hint: "mean of recent answers, nats", show: (figures) => number(figures.entropy), options: {} },
  { key: "accuracy", label: "Accuracy", hint: "estimated without labels", show: (figures) => percent(figures.accuracy), options: { share: true }, format: percent },
  { key: "drift", label: "Drift", hint: "highest level of any session", show: (figures) => number(figures.drift), options: {} },
];
export const TIMELINE = [
  { field: "updates", label: "Updates", colour: "updates" },
  { field: "restorations", label: "Restorations", colour: "restored" },
  { field: "rollbacks", label: "Roll-backs", colour: "rolled" },
];
const FIELDS = ["entropy", "accuracy", "drift", "updates", "rollbacks", "restorations", "requests", "adaptation_ms", "denied_ms"];
const COUNTED = ["requests", "updates", "rollbacks", "restorations", "adaptation_ms", "denied_ms"];

export class Models {
  constructor() {
    this.node = el("div", { class: "models" });
    this.cards = new Map();
  }

  async show(list, status) {
    const names = new Set(list.models.map((figures) => figures.model));
    for (const [name, card] of this.cards) {
      if (names.has(name)) continue;
      card.destroy();
      this.cards.delete(name);
    }
    for (const figures of list.models) {
      if (!this.cards.has(figures.model)) {
        const card = new Card(figures.model);
        this.cards.set(figures.model, card);
        this.node.append(card.node);
      }
    }
    await Promise.all(list.models.map((figures) => this.cards.get(figures.model).show(figures, list.at, status)));
  }

  destroy() {
    this.cards.forEach((card) => card.destroy());
  }
}

class Card {
  constructor(model) {
    this.model = model;
    this.track = new Track(FIELDS);
    this.last = null;
    this.title = el("h3", {}, model);
    this.version = el("span", { class: "chip" });
    this.sessions = el("span", { class: "muted" });
    this.period = el("span", { class: "muted" });
    this.panels = PANELS.map((panel) => {
      const line = { field: panel.key, label: panel.label, colour: panel.key, format: panel.format || number, gaps: true };
      const value = el("strong", { class: "value" });
      const chart = new Chart([line], panel.options);
      return { ...panel, value, chart, node: el("div", { class: `panel ${panel.key}` }, el("div", { class: "panel-head" }, el("span", {}, panel.label), value), chart.box, el("p", { class: "hint" }, panel.hint)) };
    });
    this.timeline = new Chart(TIMELINE.map((line) => ({ ...line, format: count })), { bars: true, height: 64 });
    this.counts = TIMELINE.map((line) => ({ ...line, node: el("b", {}) }));
    const legend = el("p", { class: "legend" }, ...this.counts.map((line) => el("span", { class: `key ${line.colour}` }, line.node, ` ${line.label.toLowerCase()}`)));
    this.budget = el("p", { class: "muted" });
    this.meter = el("meter", { min: 0, max: 1, "aria-label": "Adaptation budget used" });
    this.node = el("article", { class: "card model", "aria-label": `Model ${model}` },
      el("header", { class: "card-head" }, this.title, this.version, el("span", { class: "grow" }), this.sessions, this.period),
      el("div", { class: "panels" }, ...this.panels.map((panel) => panel.node),
        el("div", { class: "panel timeline" }, el("div", { class: "panel-head" }, el("span", {}, "Learning over time")), this.timeline.box, legend)),
      el("footer", { class: "card-foot" }, this.budget, this.meter));
  }

  async show(figures, at, status) {
    text(this.version, `version ${figures.version}`);
    text(this.sessions, `${count(figures.sessions)} session${figures.sessions === 1 ? "" : "s"}${figures.whole ? "" : " of yours"}`);
    this.panels.forEach((panel) => text(panel.value, panel.show(figures)));
    this.counts.forEach((line) => text(line.node, count(figures[line.field])));
    await this.extend(figures, at);
    const [first, last] = [this.track.at[0], this.track.at[this.track.at.length - 1]];
    text(this.period, last > first ? `last ${span(last - first)}` : "");
    this.panels.forEach((panel) => panel.chart.set(this.track));
    this.timeline.set(this.track);
    this.showBudget(figures, status);
  }

  async extend(figures, at) {
    const newest = this.track.at.length ? this.track.at[this.track.at.length - 1] : 0;
    if (figures.whole) {
      const points = await get(`models/${encodeURIComponent(this.model)}/history?after=${newest}`);
      if (newest) this.track.add(points);
      else this.track.begin(points);
      return;
    }
    // Figures of one's own sessions are not remembered by the daemon: the history begins with the page.
    const last = this.last || figures;
    const grown = Object.fromEntries(COUNTED.map((field) => [field, [Math.max(0, figures[field] - last[field]) || 0]]));
    this.track.add({ at: [at], series: { entropy: [figures.entropy], accuracy: [figures.accuracy], drift: [figures.drift], ...grown } });
    this.last = figures;
  }

  showBudget(figures, status) {
    const recent = this.track.at.slice(-16);
    const seconds = recent.length > 1 ? recent[recent.length - 1] - recent[0] : 0;
    const rate = (field) => (seconds ? this.track.series[field].slice(-(recent.length - 1)).reduce((sum, value) => sum + (value || 0), 0) / seconds : 0);
    const parts = [`${number(rate("requests"), 1)} requests/s`];
    if (figures.whole) {
      parts.push(`adaptation ${count(rate("adaptation_ms"))} of ${count(status.budget_ms_per_s)} ms/s`);
      parts.push(`denied ${count(rate("denied_ms"))} ms/s`);
      parts.push(`${count(figures.skipped)} steps skipped`);
      this.meter.max = Math.max(status.budget_ms_per_s, 1);
      this.meter.value = rate("adaptation_ms");
    }
    this.meter.hidden = !figures.whole;
    if (figures.labelled_accuracy !== null) parts.push(`by labels ${percent(figures.labelled_accuracy)} right`);
    text(this.budget, parts.join(" · "));
  }

  destroy() {
    [...this.panels.map((panel) => panel.chart), this.timeline].forEach((chart) => chart.destroy());
    this.node.remove();
  }
}
