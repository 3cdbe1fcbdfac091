// What happened, in words, newest first.

import { clock, el, moment } from "./dom.js";
import { address } from "./sessions.js";

const WORDS = {
  created: "opened", reset: "reset to the source", deleted: "deleted", applied: "learnt", skipped: "step skipped",
  rolled_back: "step rolled back", restored: "restored", feedback: "labels came", seeded: "begun from a seed",
  drifted: "stream changed", paused: "paused", resumed: "resumed", forked: "copied", updated: "settings changed",
  snapshot_taken: "snapshot taken", snapshot_deleted: "snapshot deleted", expired: "expired", evicted: "left memory",
  returned: "returned to memory", fenced: "taken over by another daemon", moved: "moved to another bundle",
};
const KINDS = { rolled_back: "rolled", fenced: "rolled", restored: "restored", reset: "restored", drifted: "drift", applied: "updates" };
const LIMIT = 60;

export class Events {
  constructor(title, named) {
    this.named = named;
    this.list = el("ol", { class: "events" });
    this.empty = el("p", { class: "muted" }, "Nothing yet.");
    this.node = el("section", { class: "card", "aria-label": title }, el("header", { class: "card-head" }, el("h2", {}, title)), this.list, this.empty);
  }

  begin(events) {
    this.list.replaceChildren(...events.slice(0, LIMIT).map((event) => this.line(event)));
    this.empty.hidden = events.length > 0;
  }

  add(events, missed) {
    if (missed) this.list.prepend(el("li", { class: "muted" }, "some events were missed"));
    this.list.prepend(...events.slice().reverse().map((event) => this.line(event)));
    while (this.list.children.length > LIMIT) this.list.lastElementChild.remove();
    this.empty.hidden = true;
  }

  line(event) {
    const details = [event.reason];
    if (event.kind === "restored") details.push(event.restored_to ? `to version ${event.restored_to}` : "to the source");
    if (event.version_after !== event.version_before) details.push(`version ${event.version_before} → ${event.version_after}`);
    if (event.samples && event.kind === "applied") details.push(`${event.samples} samples`);
    if (event.cost_ms) details.push(`${event.cost_ms.toFixed(0)} ms`);
    return el("li", { class: KINDS[event.kind] || "" },
      el("time", { datetime: new Date(1000 * event.at).toISOString(), title: moment(event.at) }, clock(event.at)),
      this.named ? el("a", { href: address(event.model, event.session_id) }, event.session_id) : null,
      el("span", { class: "what" }, WORDS[event.kind] || event.kind),
      el("span", { class: "muted" }, details.filter(Boolean).join(" · ")));
  }
}
