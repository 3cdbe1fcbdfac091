// Elements and texts. Whatever comes from the daemon becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

// el("div", {class: "x", onclick: f, "aria-label": "y"}, "text", child, ...)
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
  return node;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && Math.abs(value) < 10 ** -digits) return `<${(10 ** -digits).toFixed(digits)}`;
  return value.toFixed(digits);
}

export const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);

export function count(value) {
  if (value === null || value === undefined) return "–";
  return value < 1e4 ? String(Math.round(value)) : new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let place = 0;
  for (; value >= 1024 && place < units.length - 1; place += 1) value /= 1024;
  return `${value.toFixed(place && value < 100 ? 1 : 0)} ${units[place]}`;
}

export const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString([], { hour12: false });

export const moment = (seconds) => new Date(1000 * seconds).toLocaleString([], { hour12: false });

export function ago(seconds, now = Date.now() / 1000) {
  const past = Math.max(0, now - seconds);
  if (past < 5) return "now";
  if (past < 60) return `${Math.round(past)} s ago`;
  if (past < 3600) return `${Math.round(past / 60)} min ago`;
  if (past < 86400) return `${Math.round(past / 3600)} h ago`;
  return `${Math.round(past / 86400)} d ago`;
}

export function span(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// A line without axes, for lists: 60 by 18, gaps where nothing was known.
export function spark(values, kind) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const low = Math.min(...known), range = Math.max(...known) - low || 1;
  const at = (value, place) => `${(60 * place / (values.length - 1)).toFixed(1)} ${(16 - 14 * (value - low) / range).toFixed(1)}`;
  let path = "", pen = "M";
  values.forEach((value, place) => {
    if (value === null) { pen = "M"; return; }
    path += pen + at(value, place);
    pen = "L";
  });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 60 18");
  svg.setAttribute("class", `spark ${kind}`);
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

export function confirmed(title, message, yes) {
  const dialog = document.getElementById("confirm");
  text(document.getElementById("confirm-title"), title);
  text(document.getElementById("confirm-text"), message);
  text(document.getElementById("confirm-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

export function notice(message) {
  const place = document.getElementById("notice");
  text(place, message || "");
  place.hidden = !message;
}
