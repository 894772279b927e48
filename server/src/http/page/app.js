// The page at `/`: shows the match in the second photo of a point that is clicked in the first.
//
// The match comes from POST /correspondence. The page also fetches both feature maps once and
// computes the similarity of every cell, so that the overlay can follow the pointer.
// Coordinates are the API's: (0, 0) is the centre of the top-left pixel.

const $ = (id) => document.getElementById(id);
const POINT_COLOUR = "#ff9f1c";
const MATCH_COLOUR = "#2ec4b6";
const SIMILARITY_COLOURS = [[33, 12, 74], [137, 34, 106], [214, 69, 65], [251, 155, 6], [252, 255, 164]];

const panes = { source: makePane("source"), target: makePane("target") };
let models = [];
let tab = "match";
let point = null; // [x, y] in the first photo
let match = null; // the server's answer for `point`
let pending = new AbortController(); // what the last click or change asked the server for
let downloadUrl = null;

// --- The server ---------------------------------------------------------------------------------

/** A failed request, with the server's message. */
class Problem extends Error {}

/** The API key, if the server asks for one; kept until the tab is closed. */
const KEY = "densecl-api-key";

async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let reply;
  try {
    reply = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Is it still running?");
  }
  if (reply.ok) return reply;
  if (reply.status === 401) $("key-form").hidden = false;
  const problem = await reply.json().catch(() => ({}));
  const title = problem.title ?? `The server answered ${reply.status} ${reply.statusText}`;
  throw new Problem(problem.detail ? `${title}: ${problem.detail}` : title);
}

/** The settings above the photos, as query or form fields. */
function settings() {
  return { model: $("model").value, layer: $("layer").value, side: $("side").value };
}

/** The feature map of a pane's photo, [C, h, w], every cell of length 1. */
async function featureMap(pane, signal) {
  const key = JSON.stringify(settings());
  if (pane.map?.key === key) return pane.map;
  const query = new URLSearchParams({ ...settings(), format: "raw" });
  const headers = { "Content-Type": "application/octet-stream" };
  const reply = await ask(`features?${query}`, { method: "POST", body: pane.file, headers, signal });
  const [channels, height, width] = reply.headers.get("Densecl-Shape").match(/\d+/g).map(Number);
  const values = new Float32Array(await reply.arrayBuffer());
  pane.map = { key, channels, height, width, cells: height * width, values };
  return pane.map;
}

/** The times of the server's stages, by `Server-Timing`. */
function serverTime(reply) {
  const parts = [...(reply.headers.get("Server-Timing") ?? "").matchAll(/([\w-]+);dur=([\d.]+)/g)];
  const notable = parts.filter(([, , ms]) => ms >= 0.05);
  return notable.map(([, name, ms]) => `${name} ${Number(ms).toFixed(ms < 10 ? 1 : 0)} ms`).join(", ") || "–";
}

// --- Similarity ---------------------------------------------------------------------------------

/** The descriptor at a point of the photo: bilinear between cell centres, clamped at the edges. */
function descriptorAt(map, pane, [x, y]) {
  const column = Math.min(Math.max(((x + 0.5) * map.width) / pane.width - 0.5, 0), map.width - 1);
  const row = Math.min(Math.max(((y + 0.5) * map.height) / pane.height - 0.5, 0), map.height - 1);
  const [j, i] = [Math.floor(column), Math.floor(row)];
  const [right, down] = [Math.min(j + 1, map.width - 1), Math.min(i + 1, map.height - 1)];
  const [u, v] = [column - j, row - i];
  const corners = [[i * map.width + j, (1 - u) * (1 - v)], [i * map.width + right, u * (1 - v)],
    [down * map.width + j, (1 - u) * v], [down * map.width + right, u * v]];
  const descriptor = new Float32Array(map.channels);
  let squares = 0;
  for (let c = 0; c < map.channels; c++) {
    for (const [cell, weight] of corners) descriptor[c] += weight * map.values[c * map.cells + cell];
    squares += descriptor[c] ** 2;
  }
  const norm = Math.sqrt(squares) || 1;
  return descriptor.map((value) => value / norm);
}

/** The cosine similarity of one descriptor to every cell of a map. */
function similarityTo(map, descriptor) {
  const similarity = new Float32Array(map.cells);
  for (let c = 0; c < map.channels; c++) {
    const offset = c * map.cells;
    for (let i = 0; i < map.cells; i++) similarity[i] += descriptor[c] * map.values[offset + i];
  }
  let best = 0;
  let mean = 0;
  similarity.forEach((value, i) => {
    if (value > similarity[best]) best = i;
    mean += value / map.cells;
  });
  return { values: similarity, width: map.width, height: map.height, best, mean, highest: similarity[best] };
}

/** An image of the similarity, one pixel per cell: transparent at the mean, opaque at the maximum. */
function similarityPicture({ values, width, height, mean, highest }) {
  const picture = new OffscreenCanvas(width, height);
  const context = picture.getContext("2d");
  const image = context.createImageData(width, height);
  values.forEach((value, i) => {
    const t = Math.min(Math.max((value - mean) / (highest - mean || 1), 0), 1);
    const at = t * (SIMILARITY_COLOURS.length - 1);
    const low = SIMILARITY_COLOURS[Math.floor(at)];
    const high = SIMILARITY_COLOURS[Math.ceil(at)];
    for (let k = 0; k < 3; k++) image.data[i * 4 + k] = low[k] + (high[k] - low[k]) * (at % 1);
    image.data[i * 4 + 3] = 90 + 130 * t;
  });
  context.putImageData(image, 0, 0);
  return picture;
}

// --- Photos -------------------------------------------------------------------------------------

function makePane(id) {
  const figure = $(id);
  const pane = { figure, canvas: figure.querySelector("canvas"), drop: figure.querySelector(".drop"),
    input: figure.querySelector("input"), remove: figure.querySelector("[data-action=remove]"),
    file: null, bitmap: null, width: 0, height: 0, map: null };
  pane.input.addEventListener("change", () => load(pane, pane.input.files[0]));
  pane.remove.addEventListener("click", () => load(pane, null));
  figure.addEventListener("dragover", (event) => {
    event.preventDefault();
    figure.classList.add("over");
  });
  figure.addEventListener("dragleave", () => figure.classList.remove("over"));
  figure.addEventListener("drop", (event) => {
    event.preventDefault();
    figure.classList.remove("over");
    const [first, second] = event.dataTransfer.files;
    if (first) load(pane, first);
    if (second) load(pane === panes.source ? panes.target : panes.source, second);
  });
  return pane;
}

async function load(pane, file) {
  if (file === undefined) return;
  showProblem(null);
  let bitmap = null;
  try {
    if (file) bitmap = await createImageBitmap(file); // turned as its EXIF orientation says
  } catch {
    showProblem(`This browser cannot show ${file.name || "that file"}. The API reads JPEG, PNG, WebP, GIF, BMP and TIFF.`);
    return;
  }
  Object.assign(pane, { file, bitmap, width: bitmap?.width ?? 0, height: bitmap?.height ?? 0, map: null });
  pane.input.value = "";
  pane.drop.hidden = Boolean(file);
  pane.canvas.hidden = !file;
  pane.remove.hidden = !file;
  if (pane === panes.source || !file) point = null;
  $("turned-copy").hidden = !panes.source.file || Boolean(panes.target.file);
  refresh();
}

/** A rotated and brighter copy of the first photo, for matching without a second photo. */
async function turnedCopy() {
  const { bitmap, width, height, file } = panes.source;
  const copy = new OffscreenCanvas(width, height);
  const context = copy.getContext("2d");
  context.fillStyle = "grey";
  context.fillRect(0, 0, width, height);
  context.filter = "brightness(1.15)";
  context.translate(width / 2, height / 2);
  context.rotate(Math.PI / 9);
  context.drawImage(bitmap, -width / 2, -height / 2);
  const blob = await copy.convertToBlob({ type: "image/png" });
  load(panes.target, new File([blob], `turned-${file.name.replace(/\.\w+$/, "")}.png`, { type: "image/png" }));
}

// --- Drawing ------------------------------------------------------------------------------------

function drawPhoto(pane, overlay, marker, colour) {
  if (!pane.bitmap) return;
  const { canvas, width, height } = pane;
  const shown = Math.min(pane.figure.clientWidth, (window.innerHeight * 0.72 * width) / height);
  const scale = (shown * window.devicePixelRatio) / width;
  canvas.style.width = `${shown}px`;
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(pane.bitmap, 0, 0, canvas.width, canvas.height);
  if (overlay) context.drawImage(overlay, 0, 0, canvas.width, canvas.height);
  if (!marker) return;
  const [x, y] = marker.map((value) => (value + 0.5) * scale);
  const unit = window.devicePixelRatio;
  const circle = (radius) => {
    context.beginPath();
    context.arc(x, y, radius * unit, 0, 2 * Math.PI);
  };
  for (const [style, line] of [["#000000a0", 6], ["#ffffff", 3]]) {
    context.strokeStyle = style;
    context.lineWidth = line * unit;
    circle(9);
    context.stroke();
  }
  context.fillStyle = colour;
  circle(3.5);
  context.fill();
}

function draw() {
  const { source, target } = panes;
  const matching = tab === "match";
  drawPhoto(source, null, matching ? point : null, POINT_COLOUR);
  let similarity = null;
  if (matching && point && source.map && target.map) {
    similarity = similarityTo(target.map, descriptorAt(source.map, source, point));
    const [low, high] = [similarity.mean, similarity.highest].map((value) => value.toFixed(2));
    $("match-range").textContent = `of all cells ${low} on average, at most ${high}`;
  }
  const overlay = similarity && $("show-similarity").checked ? similarityPicture(similarity) : null;
  const cell = similarity && [
    (((similarity.best % similarity.width) + 0.5) * target.width) / similarity.width - 0.5,
    ((Math.floor(similarity.best / similarity.width) + 0.5) * target.height) / similarity.height - 0.5];
  drawPhoto(target, overlay, matching && point ? (match?.target ?? cell) : null, MATCH_COLOUR);
}

// --- User actions -------------------------------------------------------------------------------

/** Cancels the previous work and runs `work` with a new signal; shows its error. */
async function begin(work) {
  pending.abort();
  const mine = (pending = new AbortController());
  const figures = document.querySelectorAll(".pane");
  showProblem(null);
  figures.forEach((figure) => figure.classList.add("busy"));
  try {
    await work(mine.signal);
  } catch (error) {
    if (error.name !== "AbortError" && mine === pending) showProblem(error.message);
    if (!(error instanceof Problem) && error.name !== "AbortError") throw error;
  } finally {
    if (mine === pending || pending.signal.aborted) figures.forEach((figure) => figure.classList.remove("busy"));
  }
}

function showProblem(text) {
  $("problem").textContent = text ?? "";
  $("problem").hidden = !text;
}

/** Updates everything that depends on the photos, the tab or the settings. */
function refresh() {
  pending.abort();
  match = null;
  const { source, target } = panes;
  $("match").hidden = true;
  $("features").hidden = true;
  $("components").hidden = true;
  $("picture-hint").hidden = false;
  $("features-hint").hidden = Boolean(source.file);
  const both = source.file && target.file;
  $("match-hint").hidden = Boolean(both && point);
  $("match-hint").textContent = both ? "Click a point in the first photo, or drag over it."
    : "Choose two photos, then click a point in the first one.";
  draw();
  if (!$("settings").checkValidity() || !models.length) return;
  if (tab === "features" && source.file) begin(showFeatures);
  if (tab === "match" && both) begin(point ? findMatch : fetchMaps);
}

async function fetchMaps(signal) {
  await Promise.all([featureMap(panes.source, signal), featureMap(panes.target, signal)]);
  draw();
}

async function findMatch(signal) {
  const { source, target } = panes;
  const fields = { ...settings(), points: JSON.stringify([point]), format: "json" };
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("source", source.file);
  form.append("target", target.file);
  const asked = ask("correspondence", { method: "POST", body: form, signal });
  const [reply] = await Promise.all([asked, fetchMaps(signal)]);
  match = (await reply.json()).matches[0];
  $("match-source").textContent = pair(match.source);
  $("match-target").textContent = pair(match.target);
  $("match-score").textContent = match.score.toFixed(3);
  $("match-meter").value = match.score;
  $("match-mutual").textContent = match.mutual ? "yes, each is the other's best" : "no, only from first to second";
  $("match-time").textContent = serverTime(reply);
  $("match-command").textContent = curl("correspondence", { source, target }, { ...settings(), points: fields.points });
  $("match").hidden = false;
  $("match-hint").hidden = true;
  draw();
}

async function showFeatures(signal) {
  const photo = panes.source;
  const options = { method: "POST", body: photo.file, headers: { "Content-Type": "application/octet-stream" }, signal };
  const query = (format) => `features?${new URLSearchParams({ ...settings(), format })}`;
  const [picture, map] = await Promise.all([ask(query("png"), options), ask(query("npy"), options)]);
  const [pictureBlob, mapBlob] = await Promise.all([picture.blob(), map.blob()]);
  const [channels, height, width] = map.headers.get("Densecl-Shape").match(/\d+/g).map(Number);
  URL.revokeObjectURL($("components").src);
  URL.revokeObjectURL(downloadUrl);
  $("components").src = URL.createObjectURL(pictureBlob);
  downloadUrl = URL.createObjectURL(mapBlob);
  $("download").href = downloadUrl;
  $("download").download = `${photo.file.name.replace(/\.\w+$/, "") || "features"}.npy`;
  $("features-shape").textContent = `${channels} channels, ${height} × ${width} cells`;
  $("features-cell").textContent = `${(photo.width / width).toFixed(1)} × ${(photo.height / height).toFixed(1)} px of the photo`;
  $("features-model").textContent = `${map.headers.get("Densecl-Model")}, ${map.headers.get("Densecl-Layer")}`;
  $("features-time").textContent = serverTime(map);
  $("features-command").textContent = curl("features", { image: photo }, { ...settings(), format: "npy" }, "features.npy");
  $("numpy-command").textContent = `python3 -c "import numpy; print(numpy.load('features.npy').shape)"`;
  $("components").hidden = false;
  $("picture-hint").hidden = true;
  $("features").hidden = false;
}

const pair = ([x, y]) => `${x.toFixed(1)}, ${y.toFixed(1)}`;

/** The request as a shell command. */
function curl(path, photos, fields, output) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = Object.entries(photos).map(([name, pane]) => `-F ${quote(`${name}=@${pane.file.name}`)}`);
  parts.push(...Object.entries(fields).map(([name, value]) => `-F ${quote(`${name}=${value}`)}`));
  if (sessionStorage.getItem(KEY)) parts.push('-H "Authorization: Bearer $DENSECL_KEY"');
  return `curl ${parts.join(" ")} ${new URL(path, location.href)}${output ? ` -o ${output}` : ""}`;
}

function pick(event) {
  const box = panes.source.canvas.getBoundingClientRect();
  const { width, height } = panes.source;
  moveTo(((event.clientX - box.left) / box.width) * width - 0.5, ((event.clientY - box.top) / box.height) * height - 0.5);
}

function moveTo(x, y) {
  const { width, height } = panes.source;
  const rounded = (value) => Math.round(value * 10) / 10;
  point = [rounded(Math.min(Math.max(x, 0), width - 1)), rounded(Math.min(Math.max(y, 0), height - 1))];
  match = null;
  draw();
}

let dragging = false;
const sourceCanvas = panes.source.canvas;
sourceCanvas.addEventListener("pointerdown", (event) => {
  if (tab !== "match" || event.button !== 0) return;
  dragging = true;
  sourceCanvas.setPointerCapture(event.pointerId);
  pick(event);
});
sourceCanvas.addEventListener("pointermove", (event) => dragging && pick(event));
sourceCanvas.addEventListener("pointerup", () => {
  if (dragging) refreshMatch();
  dragging = false;
});
sourceCanvas.addEventListener("pointercancel", () => (dragging = false));
sourceCanvas.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const move = moves[event.key];
  if (!move || tab !== "match") return;
  event.preventDefault();
  const { width, height } = panes.source;
  const step = (event.shiftKey ? 0.1 : 0.02) * Math.max(width, height);
  const [x, y] = point ?? [(width - 1) / 2, (height - 1) / 2];
  moveTo(x + move[0] * step, y + move[1] * step);
});
sourceCanvas.addEventListener("keyup", (event) => event.key.startsWith("Arrow") && refreshMatch());

function refreshMatch() {
  if (panes.target.file && $("settings").checkValidity()) begin(findMatch);
}

document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (file) load(panes.source.file && tab === "match" ? panes.target : panes.source, file);
});
$("turned-copy").addEventListener("click", turnedCopy);
$("show-similarity").addEventListener("change", draw);
window.addEventListener("resize", draw);

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const code = $(button.dataset.copy);
    window.getSelection().selectAllChildren(code);
    await navigator.clipboard?.writeText(code.textContent); // only on https and localhost; else it stays selected
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

// --- Tabs and settings --------------------------------------------------------------------------

const tabs = ["match", "features"];
for (const name of tabs) {
  $(`tab-${name}`).addEventListener("click", () => openTab(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = tabs[1 - tabs.indexOf(name)];
    openTab(other);
    $(`tab-${other}`).focus();
  });
}

function openTab(name) {
  tab = name;
  for (const each of tabs) {
    $(`tab-${each}`).setAttribute("aria-selected", String(each === name));
    $(`tab-${each}`).tabIndex = each === name ? 0 : -1;
    $(`panel-${each}`).hidden = each !== name;
  }
  $("target").hidden = name !== "match";
  $("picture").hidden = name !== "features";
  refresh();
}

/** The layers of the selected model, stacks of neighbouring layers, and the default layer. */
function offerLayers() {
  const model = models.find(({ name }) => name === $("model").value);
  const spatial = model.layers.map(({ name }) => name);
  const blocks = spatial.filter((name) => name.startsWith("res"));
  const stacked = blocks.slice(1).map((name, i) => `${blocks[i]}+${name}`);
  const offered = new Set([model.default_layer, ...spatial, ...stacked]);
  const options = [...offered].map((name) => new Option(name.replaceAll("+", " + "), name));
  $("layer").replaceChildren(...options);
  $("layer").value = model.default_layer;
  $("side").value = model.default_side;
}

$("model").addEventListener("change", () => {
  offerLayers();
  refresh();
});
$("layer").addEventListener("change", refresh);
$("side").addEventListener("change", () => $("settings").reportValidity() && refresh());
$("settings").addEventListener("submit", (event) => event.preventDefault());

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  start();
});

const start = () => begin(async (signal) => {
  const reply = await (await ask("models", { signal })).json();
  models = reply.models.filter(({ state }) => state === "ready").map(({ name, manifest }) => ({ ...manifest, name }));
  // A link cannot send a key: it is offered where none is asked for.
  for (const link of document.querySelectorAll(".keyless")) link.hidden = Boolean(sessionStorage.getItem(KEY));
  if (!models.length) throw new Problem("The server has no model yet.");
  $("model").replaceChildren(...[...new Set(models.map(({ name }) => name))].map((name) => new Option(name)));
  offerLayers();
  refresh();
});

start();
