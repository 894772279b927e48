"use strict";
// Draws the curves as SVG and enlarges pictures. All text goes in as text, never as markup.

const CHARTS = [
  { key: "loss", title: "Loss, total", unit: "nats", logarithmic: true },
  { key: "loss_global", title: "Loss, global", unit: "nats", logarithmic: true },
  { key: "loss_dense", title: "Loss, dense", unit: "nats", logarithmic: true },
  { key: "global_top1", title: "Global top-1", unit: "%", zero: true },
  { key: "dense_top1", title: "Dense top-1", unit: "%", zero: true },
  { key: "same_cell", title: "Matched with the same cell", unit: "% of the cells", zero: true },
  { key: "place_similarity", title: "Place similarity", unit: "cosine, same cell of other images", zero: true },
  { key: "embedding_std", title: "Embedding std", unit: "over the batch", zero: true, spread: true },
  { key: "feature_std", title: "Feature std", unit: "over the batch", zero: true },
  { key: "learning_rate", title: "Learning rate", unit: "", zero: true, exact: true },
  { key: "loss_lambda", title: "Weight λ of the dense loss", unit: "", zero: true, exact: true },
  { key: "pairs_per_second", title: "Speed", unit: "pairs/s", zero: true },
  { key: "data_wait", title: "Waiting for images", unit: "% of the time", zero: true },
];
const AXES = { step: "step", epoch: "epoch", minutes: "minutes" };
const MARGIN = { left: 52, right: 14, top: 8, bottom: 34 };
const HEIGHT = 210;

const runs = JSON.parse(document.getElementById("data").textContent).runs;
const byId = (id) => document.getElementById(id);
const shown = runs.map(() => true);
const settings = { axis: "step", smoothing: 0, logarithmic: false };
let drawn = [];

runs.forEach((run) => {
  const seconds = run.columns.seconds;
  if (seconds && seconds.some((value) => value > 0)) run.columns.minutes = seconds.map((value) => value === null ? null : value / 60);
});

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function html(name, attributes, text) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// A number as short as it can be read.
function format(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e").replace("-", "−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

// Round values that cover an interval: steps of 1, 2 or 5 times a power of ten.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

function logarithmicTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of [1, 2, 5]) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  }
  return found.length >= 2 ? found : ticks(low, high, 4).filter((value) => value > 0);
}

// Exponential moving average, corrected for its start; gaps stay gaps.
function smooth(points, weight) {
  let sum = 0, mass = 0;
  return points.map(({ x, y, step }) => {
    if (y === null) return { x, y, step };
    sum = weight * sum + (1 - weight) * y;
    mass = weight * mass + (1 - weight);
    return { x, y: sum / mass, step };
  });
}

// The curves of a chart: points of every shown run that measured it.
function curves(chart) {
  return runs.map((run, index) => {
    const xs = run.columns[settings.axis], ys = run.columns[chart.key];
    if (!shown[index] || !xs || !ys || ys.every((y) => y === null)) return null;
    const raw = xs.map((x, i) => ({ x, y: ys[i], step: run.columns.step[i] })).filter(({ x }) => x !== null);
    return { index, run, raw, points: settings.smoothing > 0 && !chart.exact ? smooth(raw, settings.smoothing) : raw };
  }).filter((curve) => curve !== null);
}

function extent(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

function scales(chart, found, width, references) {
  const logarithmic = chart.logarithmic && settings.logarithmic;
  const ys = found.flatMap(({ raw }) => raw.map(({ y }) => y)).filter((y) => y !== null && (!logarithmic || y > 0));
  let [left, right] = extent(found.flatMap(({ raw }) => raw.map(({ x }) => x)));
  let [low, high] = extent(ys.concat(references));
  if (chart.zero) low = Math.min(0, low);
  if (!(high > low)) [low, high] = logarithmic ? [low / 2, low * 2] : low === 0 ? [0, 1] : [low - Math.abs(low) / 10, low + Math.abs(low) / 10];
  if (!(right > left)) [left, right] = [left - 1, right + 1];
  if (logarithmic) [low, high] = [low / 1.03, high * 1.03];
  const marks = logarithmic ? logarithmicTicks(low, high) : ticks(low, high, 4);
  if (!logarithmic) {
    const step = marks.length > 1 ? marks[1] - marks[0] : high - low;
    if (high > marks[marks.length - 1] + step * 0.02) { high = marks[marks.length - 1] + step; marks.push(high); }
    if (low < marks[0] - step * 0.02) { low = marks[0] - step; marks.unshift(low); }
  }
  const map = logarithmic ? Math.log : (value) => value;
  const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  return {
    left, right, marks, logarithmic,
    x: (value) => MARGIN.left + (value - left) / (right - left) * inner.width,
    y: (value) => MARGIN.top + (map(high) - map(value)) / (map(high) - map(low)) * inner.height,
    from: (pixel) => left + (pixel - MARGIN.left) / inner.width * (right - left),
  };
}

function path(points, scale) {
  let pen = "M", text = "";
  for (const { x, y } of points) {
    if (y === null || (scale.logarithmic && y <= 0)) { pen = "M"; continue; }
    text += `${pen}${scale.x(x).toFixed(1)} ${scale.y(y).toFixed(1)}`;
    pen = "L";
  }
  return text;
}

function drawAxes(picture, scale, width) {
  const bottom = HEIGHT - MARGIN.bottom;
  for (const value of scale.marks) {
    const y = scale.y(value);
    picture.append(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
    picture.append(svg("text", { x: MARGIN.left - 7, y: y + 4, "text-anchor": "end" }, format(value)));
  }
  picture.append(svg("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }));
  for (const value of ticks(scale.left, scale.right, 5)) {
    const x = scale.x(value);
    picture.append(svg("line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
    picture.append(svg("text", { x, y: bottom + 16, "text-anchor": "middle" }, format(value)));
  }
  const middle = (MARGIN.left + width - MARGIN.right) / 2;
  picture.append(svg("text", { x: middle, y: HEIGHT - 4, "text-anchor": "middle" }, AXES[settings.axis]));
}

function drawCurve(picture, { index, raw, points }, scale) {
  const colour = `curve run-${index % 8}${index >= 8 ? " again" : ""}`;
  if (points !== raw) picture.append(svg("path", { class: `${colour} raw`, d: path(raw, scale) }));
  picture.append(svg("path", { class: colour, d: path(points, scale) }));
  if (raw.length === 1 && raw[0].y !== null) {
    picture.append(svg("circle", { class: `dot run-${index % 8}`, cx: scale.x(raw[0].x), cy: scale.y(raw[0].y), r: 4 }));
  }
}

// Where the unit-length projections of every run would spread evenly: 1/√D.
function evenSpread(chart, found) {
  if (!chart.spread) return [];
  const dims = [...new Set(found.map(({ run }) => run.dim))];
  return dims.length === 1 && dims[0] > 0 ? [1 / Math.sqrt(dims[0])] : [];
}

function drawChart(chart) {
  const found = curves(chart);
  if (found.length === 0) return null;
  const panel = html("div", { class: "chart" });
  const title = html("h4", {}, chart.title);
  if (chart.unit) title.append(" ", html("span", {}, chart.unit));
  panel.append(title);
  byId("charts").append(panel);
  const width = Math.max(280, panel.clientWidth);
  const references = evenSpread(chart, found);
  const scale = scales(chart, found, width, references);
  const label = `${chart.title} along ${AXES[settings.axis]}`;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label });
  drawAxes(picture, scale, width);
  for (const value of references) {
    const y = scale.y(value);
    picture.append(svg("line", { class: "reference", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
    picture.append(svg("text", { x: width - MARGIN.right, y: y - 4, "text-anchor": "end" }, "1/√D"));
  }
  found.forEach((curve) => drawCurve(picture, curve, scale));
  const marks = svg("g", {});
  picture.append(marks);
  panel.append(picture);
  const entry = { chart, found, scale, marks, picture, width };
  picture.addEventListener("pointermove", (event) => point(entry, event));
  picture.addEventListener("pointerleave", leave);
  return entry;
}

function draw() {
  leave();
  byId("charts").replaceChildren();
  drawn = CHARTS.map(drawChart).filter((entry) => entry !== null);
}

// The value of a curve at x; null where the run has not come so far.
function reading(points, x) {
  const [first, last] = extent(points.map((at) => at.x));
  return x < first || x > last ? null : nearest(points, x);
}

function nearest(points, x) {
  return points.reduce((best, at) => at.y !== null && (best === null || Math.abs(at.x - x) < Math.abs(best.x - x)) ? at : best, null);
}

// Marks the same place in every chart, and says the values of the one under the pointer.
function point(entry, event) {
  const box = entry.picture.getBoundingClientRect();
  const wanted = entry.scale.from((event.clientX - box.left) * entry.width / box.width);
  const x = extent([wanted, entry.scale.left])[1];
  const at = nearest(entry.found.flatMap(({ points }) => points), Math.min(x, entry.scale.right));
  if (at === null) return;
  for (const { found, scale, marks } of drawn) {
    marks.replaceChildren();
    if (at.x < scale.left || at.x > scale.right) continue;
    marks.append(svg("line", { class: "cursor", x1: scale.x(at.x), x2: scale.x(at.x), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    for (const { index, points } of found) {
      const own = reading(points, at.x);
      if (own === null || (scale.logarithmic && own.y <= 0)) continue;
      marks.append(svg("circle", { class: `dot run-${index % 8}`, cx: scale.x(own.x), cy: scale.y(own.y), r: 4 }));
    }
  }
  const tip = byId("tip");
  tip.replaceChildren(html("div", { class: "quiet" }, settings.axis === "minutes" ? `${format(at.x)} minutes` : `${settings.axis} ${format(at.x)}`));
  for (const { index, run, points } of entry.found) {
    const own = reading(points, at.x);
    if (own === null) continue;
    const line = html("div", {}), name = html("span", {});
    name.append(html("i", { class: `chip run-${index % 8}` }), own.x === at.x || settings.axis !== "step" ? run.name : `${run.name}, step ${own.step}`);
    line.append(name, html("span", {}, format(own.y)));
    tip.append(line);
  }
  tip.hidden = false;
  const right = event.clientX + 18 + tip.offsetWidth > innerWidth;
  tip.style.left = `${right ? event.clientX - 18 - tip.offsetWidth : event.clientX + 18}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
}

function leave() {
  byId("tip").hidden = true;
  drawn.forEach(({ marks }) => marks.replaceChildren());
}

function legend() {
  runs.forEach((run, index) => {
    const button = html("button", { type: "button", "aria-pressed": "true", title: "Show or hide" });
    button.append(html("i", { class: `chip run-${index % 8}` }), run.name);
    button.addEventListener("click", () => {
      shown[index] = !shown[index];
      button.setAttribute("aria-pressed", String(shown[index]));
      draw();
    });
    byId("legend").append(button);
  });
}

function controls() {
  for (const option of [...byId("axis").options]) {
    if (!runs.some((run) => run.columns[option.value])) option.remove();
  }
  byId("axis").addEventListener("change", (event) => { settings.axis = event.target.value; draw(); });
  byId("smoothing").addEventListener("input", (event) => {
    settings.smoothing = Number(event.target.value);
    byId("smoothing-value").textContent = event.target.value;
    draw();
  });
  byId("logarithmic").addEventListener("change", (event) => { settings.logarithmic = event.target.checked; draw(); });
  let width = 0;
  new ResizeObserver(() => {
    if (byId("charts").clientWidth !== width) { width = byId("charts").clientWidth; draw(); }
  }).observe(byId("charts"));
}

function enlarging() {
  const large = byId("large");
  let strip = [], at = 0;
  const show = (index) => {
    at = Math.min(Math.max(index, 0), strip.length - 1);
    large.querySelector("img").src = strip[at].src;
    large.querySelector("img").alt = strip[at].alt;
    large.querySelector("span").textContent = strip[at].alt;
    byId("before").disabled = at === 0;
    byId("after").disabled = at === strip.length - 1;
  };
  document.querySelectorAll(".strip").forEach((element) => {
    const images = [...element.querySelectorAll("img")];
    images.forEach((image, index) => image.parentElement.addEventListener("click", () => {
      strip = images;
      show(index);
      large.showModal();
    }));
  });
  byId("before").addEventListener("click", () => show(at - 1));
  byId("after").addEventListener("click", () => show(at + 1));
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
  large.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(at - 1);
    if (event.key === "ArrowRight") show(at + 1);
  });
}

legend();
controls();
enlarging();
draw();
