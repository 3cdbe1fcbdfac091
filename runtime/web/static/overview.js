// Models, the sessions that deserve a look, and what happened of late.

import { get } from "./api.js";
import { el } from "./dom.js";
import { Events } from "./events.js";
import { Models } from "./models.js";
import { Sessions } from "./sessions.js";

export class Overview {
  constructor(status) {
    this.status = status;
    this.models = new Models();
    this.sessions = new Sessions();
    this.events = new Events("What happened", true);
    this.node = el("div", { class: "overview" },
      el("h1", { class: "sr" }, "Overview"),
      el("section", { "aria-label": "Models" }, this.models.node),
      el("div", { class: "columns wide" }, this.sessions.node, this.events.node));
  }

  async begin() {
    this.sessions.models(this.status.models);
    const [models, recent] = await Promise.all([get("models"), get("recent"), this.sessions.refresh(this.status)]);
    await this.models.show(models, this.status);
    this.events.begin(recent.events);
  }

  async sample(models, status) {
    this.status = status;
    this.sessions.models(models.models.map((figures) => figures.model));
    await Promise.all([this.models.show(models, status), this.sessions.refresh(status)]);
  }

  happened({ events, missed }) {
    this.events.add(events, missed);
  }

  destroy() {
    this.models.destroy();
  }
}
