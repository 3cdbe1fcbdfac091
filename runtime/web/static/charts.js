// Lines and bars over time, drawn by uPlot: it draws on a canvas, so colours are read from the style sheet.
/* global uPlot */

import { clock, el, span } from "./dom.js";

const drawn = new Set();
const BINS = 60;
// A period of fewer seconds has them in its labels.
const SHORT = 900;
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) for (const chart of drawn) if (chart.box === target) chart.fit();
});

// Draw everything anew in other colours.
export function repaint() {
  for (const chart of drawn) chart.build();
}

export class Chart {
  // lines: [{field, label, colour, format}], options: {height, axes, share: values are shares, bars: and counts}
  constructor(lines, options = {}) {
    this.lines = lines;
    this.options = { height: 64, axes: false, bars: false, ...options };
    this.data = [[], ...lines.map(() => [])];
    this.box = el("div", { class: "chart", role: "img" });
    this.plot = null;
    drawn.add(this);
    sizes.observe(this.box);
  }

  set(points) {
    const columns = this.lines.map((line) => points.series[line.field] || []);
    this.data = this.options.bars ? binned(points.at, columns) : [points.at, ...columns];
    this.box.setAttribute("aria-label", this.describe(points));
    if (!this.plot) this.build();
    else this.plot.setData(this.shown());
  }

  describe(points) {
    if (points.at.length < 2) return `${this.lines.map((line) => line.label).join(", ")}: no history yet`;
    const period = span(points.at[points.at.length - 1] - points.at[0]);
    const told = this.lines.map((line) => {
      const known = (points.series[line.field] || []).filter((value) => value !== null);
      if (!known.length) return `${line.label} unknown`;
      const format = line.format || String;
      if (this.options.bars) return `${line.label} ${format(known.reduce((sum, value) => sum + value, 0))}`;
      return `${line.label} now ${format(known[known.length - 1])}, lowest ${format(Math.min(...known))}, highest ${format(Math.max(...known))}`;
    });
    return `The last ${period}: ${told.join("; ")}`;
  }

  shown() {
    return this.options.bars ? stacked(this.data) : this.data;
  }

  fit() {
    const width = Math.floor(this.box.clientWidth);
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: this.options.height });
    else if (!this.plot && width > 0 && this.data[0].length) this.build();
  }

  build() {
    const width = Math.floor(this.box.clientWidth);
    if (!width || !this.data[0].length) return;
    if (this.plot) this.plot.destroy();
    this.plot = new uPlot(this.settings(width), this.shown(), this.box);
  }

  settings(width) {
    const { axes, bars, height, share } = this.options;
    const [at] = this.data;
    const seconds = at[at.length - 1] - at[0];
    const axis = { stroke: colour("muted"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    return {
      width,
      height,
      padding: axes ? [8, 8, 0, 0] : [4, 2, 4, 2],
      cursor: { show: axes, points: { size: 6 }, drag: { x: false, y: false }, y: false },
      legend: { show: false },
      scales: { x: { time: true, range: (_, min, max) => [min, bars ? max + (max - min) / BINS : max] }, y: { range: (_, min, max) => bounds(min, max, share) } },
      axes: axes ? [
        { ...axis, size: 26, space: 70, values: (_, ticks) => ticks.map((second) => clock(second).slice(0, seconds < SHORT ? 8 : 5)) },
        { ...axis, size: 46, space: 28, ...(bars ? { incrs: WHOLE } : {}), values: (_, ticks) => ticks.map((value) => (share ? `${Math.round(100 * value)} %` : String(Number(value.toPrecision(4))))) },
      ] : [{ show: false }, { show: false }],
      series: [{}, ...this.lines.map((line) => this.series(line))],
      hooks: axes ? { setCursor: [(plot) => this.point(plot.cursor.idx)] } : {},
    };
  }

  series(line) {
    const stroke = colour(line.colour);
    if (this.options.bars) return { stroke, fill: stroke, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.8, 14], align: 1 }) };
    const fill = this.lines.length === 1 ? `${stroke}22` : undefined;
    return { stroke, fill, width: 1.6, dash: line.dash, points: { show: false }, spanGaps: line.gaps || false };
  }

  point(place) {
    if (this.onpoint) this.onpoint(place === null || place === undefined ? null : { at: this.data[0][place], values: this.data.slice(1).map((column) => column[place]) });
  }

  destroy() {
    drawn.delete(this);
    sizes.unobserve(this.box);
    if (this.plot) this.plot.destroy();
  }
}

// From 0 to a little more than the highest; of a share from a little less than the lowest to 1.
function bounds(min, max, share) {
  if (min === null || max === null) return [0, 1];
  if (share) return [Math.max(0, min - 0.1 * (1 - min) - 0.02), 1];
  return [0, max > 0 ? 1.06 * max : 1];
}

// Counts per point -> counts per bin, so that a bar is wide enough to be seen.
function binned(at, columns) {
  if (at.length < 2) return [at, ...columns];
  const bins = Math.min(BINS, at.length), first = at[0], width = (at[at.length - 1] - first) / bins || 1;
  const moments = Array.from({ length: bins }, (_, place) => first + place * width);
  const sums = columns.map((column) => {
    const sum = new Array(bins).fill(0);
    column.forEach((value, place) => { sum[Math.min(bins - 1, Math.floor((at[place] - first) / width))] += value || 0; });
    return sum;
  });
  return [moments, ...sums];
}

// Each column on top of those after it; the first is drawn first and is the tallest.
function stacked([at, ...columns]) {
  const sums = columns.map((_, place) => at.map((_moment, index) => columns.slice(place).reduce((sum, column) => sum + (column[index] || 0), 0)));
  return [at, ...sums.map((column) => column.map((value) => value || null))];
}

// Points as they are remembered here: what the daemon told first, and what came since.
export class Track {
  constructor(fields, limit = 900) {
    this.limit = limit;
    this.at = [];
    this.series = Object.fromEntries(fields.map((field) => [field, []]));
  }

  begin(points) {
    this.at = points.at;
    for (const field of Object.keys(this.series)) this.series[field] = points.series[field] || points.at.map(() => null);
  }

  add(points) {
    const newest = this.at.length ? this.at[this.at.length - 1] : -Infinity;
    points.at.forEach((moment, place) => {
      if (moment <= newest) return;
      this.at.push(moment);
      for (const [field, column] of Object.entries(this.series)) column.push((points.series[field] || [])[place] ?? null);
    });
    const over = this.at.length - this.limit;
    if (over > 0) for (const column of [this.at, ...Object.values(this.series)]) column.splice(0, over);
  }
}
