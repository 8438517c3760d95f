// Small helpers, and the curves of training runs. Nothing here makes markup from text: nodes and text nodes only.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

function put(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const h = (tag, props, ...children) => put(document.createElement(tag), props, children);
const svg = (tag, props, ...children) => put(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);

const LINE_COLORS = ["var(--accent)", "var(--wrong)", "var(--correct)", "var(--failed)", "var(--unanswered)"];
const BOX = { width: 340, height: 190, left: 40, right: 8, top: 8, bottom: 22 };

function niceStep(range) {
  const power = 10 ** Math.floor(Math.log10(range / 4));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= range / 4 * 0.999);
}

function niceTicks(low, high, step) {
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) ticks.push(Math.abs(tick) < step * 1e-6 ? 0 : tick);
  return ticks;
}

function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

function drawChart(panel) {
  const lines = panel.lines.map((line, index) => ({ ...line, color: LINE_COLORS[index % LINE_COLORS.length] }));
  const steps = lines.flatMap((line) => line.steps);
  const values = lines.flatMap((line) => line.values);
  const least = Math.min(...values), most = Math.max(...values);
  let low = least >= 0 && least < 0.6 * most ? 0 : least;  // from 0, unless that would flatten the curve
  let high = most;
  if (low === high) { low -= 0.5; high += 0.5; }
  const tick = niceStep(high - low);
  low = Math.floor(low / tick + 1e-9) * tick;
  if (high / tick % 1 > 0.3) high = Math.ceil(high / tick) * tick;  // a curve that barely passes a line needs no more
  const first = Math.min(...steps), last = Math.max(...steps);
  const x = (step) => BOX.left + (last > first ? (step - first) / (last - first) : 0.5) * (BOX.width - BOX.left - BOX.right);
  const y = (value) => BOX.height - BOX.bottom - ((value - low) / (high - low)) * (BOX.height - BOX.top - BOX.bottom);
  const path = (line, key) => line.steps.map((step, i) => `${i ? "L" : "M"}${x(step).toFixed(1)},${y(line[key][i]).toFixed(1)}`).join("");
  const grid = niceTicks(low, high, tick).map((tick) => [
    svg("line", { class: "grid", x1: BOX.left, x2: BOX.width - BOX.right, y1: y(tick), y2: y(tick) }),
    svg("text", { x: BOX.left - 6, y: y(tick) + 4, "text-anchor": "end" }, short(tick)),
  ]);
  const curves = lines.map((line) => line.steps.length > 1
    ? [svg("path", { class: "raw", d: path(line, "values"), stroke: line.color }), svg("path", { class: "line", d: path(line, "smooth"), stroke: line.color })]
    : svg("circle", { cx: x(line.steps[0]), cy: y(line.values[0]), r: 4, fill: line.color }));
  const cross = svg("line", { class: "cross", y1: BOX.top, y2: BOX.height - BOX.bottom, visibility: "hidden" });
  const picture = svg("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", "aria-label": describeChart(panel) },
    grid, curves, cross,
    svg("text", { x: BOX.left, y: BOX.height - 5 }, first),
    svg("text", { x: BOX.width - BOX.right, y: BOX.height - 5, "text-anchor": "end" }, `step ${last}`));
  const readout = h("div", { class: "readout" });
  const show = (step) => readout.replaceChildren(...lines.map((line) => {
    const at = step === null ? line.steps.length - 1 : nearest(line.steps, step);
    const name = lines.length > 1 || step !== null ? `${line.label} ` : "";
    const left = line.left_out ? ` (${line.left_out} values that are not finite left out)` : "";
    return h("span", {}, h("i", { class: "key", style: `background:${line.color}` }), name, short(line[step === null ? "smooth" : "values"][at]),
      step === null ? left : ` at step ${line.steps[at]}`);
  }));
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * BOX.width - BOX.left) / (BOX.width - BOX.left - BOX.right);
    const step = first + Math.min(1, Math.max(0, share)) * (last - first);
    put(cross, { x1: x(step), x2: x(step), visibility: "visible" }, []);
    show(step);
  });
  picture.addEventListener("pointerleave", () => { cross.setAttribute("visibility", "hidden"); show(null); });
  show(null);
  return h("div", { class: "chart" }, h("b", {}, panel.title), readout, picture);
}

function describeChart(panel) {
  const ends = panel.lines.map((line) => `${line.label} from ${short(line.smooth[0])} to ${short(line.smooth.at(-1))}`);
  return `${panel.title}: ${ends.join(", ")}`;
}

function nearest(steps, step) {
  let best = 0;
  steps.forEach((candidate, i) => { if (Math.abs(candidate - step) < Math.abs(steps[best] - step)) best = i; });
  return best;
}

for (const run of data.training) {
  document.getElementById("curves").append(
    h("div", { class: "run" }, h("h3", {}, run.label), h("div", { class: "charts" }, run.panels.map(drawChart))));
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const order = dark ? ["", "light"] : ["", "dark"];
  root.dataset.theme = order[(order.indexOf(root.dataset.theme || "") + 1) % 2];
});
