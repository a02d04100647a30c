// The store in two dimensions: typed arrays into one ImageData, which draws 190,000 points in a few milliseconds.

import { absent, counted, find, get, make, picture, post, saved, say } from "./dom.js";

const CLASSES = ["#56b4e9", "#e69f00", "#2fbf8f", "#f0e442", "#cc79a7", "#d55e00", "#8f9bff", "#9be15d", "#ff8a80", "#b0bec5", "#7fd1c7", "#e1a6ff"];
const UNKNOWN = 0xff5a5550; // as stored in memory, alpha first: a grey that leaves room for what is known
const NOTHING = 255;
const map = { key: "", rows: null, xy: null, codes: null, colouring: null, hidden: new Set(), scale: 1, x: 0, y: 0, way: "", cursor: -1, last: -1, lasso: null, lassoing: false, chosen: [], frames: [], queued: false };
let asked = null;
let wired = false;

export async function openMap(options) {
  asked = options;
  if (!wired) wire();
  point(-1);
  find("loading").hidden = false;
  try {
    await open(options);
  } finally {
    if (asked === options) find("loading").hidden = true;
  }
}

async function open(options) {
  const base = `/stores/${encodeURIComponent(options.store.name)}/map`;
  const run = `?run=${encodeURIComponent(options.run)}`;
  const found = await (await get(base + run)).json();
  if (asked !== options) return;
  const way = find("way"), colour = find("colour");
  const keptColour = colour.selectedOptions[0]?.textContent;
  way.replaceChildren(...found.ways.map((name) => make("option", { value: name }, { pca: "principal axes", tsne: "t-SNE" }[name] || name)));
  if (found.ways.includes("tsne")) way.value = "tsne";
  colour.replaceChildren(...found.colours.map((one, number) => make("option", { value: number }, one.name)), make("option", { value: -1 }, "nothing"));
  const again = found.colours.findIndex((one) => one.name === keptColour);
  colour.value = again >= 0 ? again : found.colours.length ? 0 : -1;
  way.onchange = () => points(base, way.value);
  colour.onchange = () => colours(base, run, found.colours);
  // Come back to, a map of the same store is as it was left.
  if (map.key !== base || map.way !== way.value) {
    choose([]);
    map.palette = map.xy = null;
    blank();
    await points(base, way.value);
  }
  await colours(base, run, found.colours);
}

async function points(base, way) {
  const mine = asked, bytes = await (await get(`${base}/points/${way}`)).arrayBuffer();
  if (asked !== mine) return;
  const count = bytes.byteLength / 12;
  map.rows = new Uint32Array(bytes, 0, count);
  map.xy = new Float32Array(bytes, 4 * count, 2 * count);
  map.key = base;
  map.way = way;
  map.cursor = map.last = -1;
  home();
}

async function colours(base, run, all) {
  const number = Number(find("colour").value), mine = asked;
  const codes = number < 0 ? null : new Uint8Array(await (await get(`${base}/colours/${number}${run}`)).arrayBuffer());
  if (asked !== mine) return;
  map.hidden.clear();
  map.colouring = number < 0 ? null : all[number];
  map.codes = codes;
  map.palette = palette(map.colouring);
  legend();
  redraw();
}

const packed = (red, green, blue) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
const hex = (text) => packed(parseInt(text.slice(1, 3), 16), parseInt(text.slice(3, 5), 16), parseInt(text.slice(5, 7), 16));

// Dark blue over green to yellow, as viridis: told apart without seeing colours.
const RAMP = [[68, 60, 140], [52, 96, 141], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function ramp(share) {
  const at = Math.min(share * (RAMP.length - 1), RAMP.length - 1.0001), low = Math.floor(at), part = at - low;
  return RAMP[low].map((value, channel) => Math.round(value + (RAMP[low + 1][channel] - value) * part));
}

function palette(colouring) {
  const colours = new Uint32Array(256).fill(UNKNOWN);
  if (!colouring) return colours.fill(hex(CLASSES[0]));
  if (colouring.kind === "share") for (let code = 0; code < NOTHING; code++) colours[code] = packed(...ramp(code / 254));
  else colouring.classes.forEach((_, code) => { colours[code] = hex(CLASSES[code % CLASSES.length]); });
  return colours;
}

function legend() {
  const place = find("legend");
  if (!map.colouring) return place.replaceChildren();
  if (map.colouring.kind === "share") {
    const bar = make("span", { className: "ramp" });
    bar.style.background = `linear-gradient(to right, ${RAMP.map((colour) => `rgb(${colour})`).join(", ")})`;
    return place.replaceChildren(make("li", { className: "row" }, "0 %", bar, "100 %"), make("li", {}, "grey: unknown"));
  }
  const counts = new Map();
  for (const code of map.codes) counts.set(code, (counts.get(code) || 0) + 1);
  const entry = (code, name, colour) => {
    const dot = make("span", { className: "dot" });
    dot.style.background = colour;
    const button = make("button", { type: "button", "aria-pressed": "true", onclick: () => {
      if (!map.hidden.delete(code)) map.hidden.add(code);
      button.setAttribute("aria-pressed", String(!map.hidden.has(code)));
      redraw();
    } }, dot, `${name} (${(counts.get(code) || 0).toLocaleString("en")})`);
    return make("li", {}, button);
  };
  place.replaceChildren(...map.colouring.classes.map((name, code) => entry(code, name, CLASSES[code % CLASSES.length])), ...(counts.has(NOTHING) ? [entry(NOTHING, "unknown", "#50555a")] : []));
}

function home() {
  map.scale = 0.94; map.x = 0; map.y = 0;
  redraw();
}

function size() {
  const stage = find("stage"), ratio = Math.min(window.devicePixelRatio || 1, 2);
  return { width: Math.max(1, Math.round(stage.clientWidth * ratio)), height: Math.max(1, Math.round(stage.clientHeight * ratio)), ratio };
}

// Where points lie in the picture, in its pixels.
function view() {
  const { width, height, ratio } = size();
  const half = Math.min(width, height) / 2 * map.scale;
  return { width, height, ratio, half, left: width / 2 - map.x * half, top: height / 2 + map.y * half };
}

function redraw() {
  if (map.queued) return;
  map.queued = true;
  requestAnimationFrame(() => { map.queued = false; draw(); });
}

function blank() {
  for (const name of ["points", "over"]) { const canvas = find(name); canvas.width = canvas.width + 0; }
  pixels = null;
  find("legend").replaceChildren();
}

let pixels = null;

function draw() {
  if (!map.xy || !map.palette) return; // not all has come yet
  const began = performance.now();
  const { width, height, half, left, top, ratio } = view();
  const canvas = find("points");
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; pixels = null; }
  const drawing = canvas.getContext("2d", { alpha: false });
  pixels ??= drawing.createImageData(width, height);
  const out = new Uint32Array(pixels.data.buffer);
  out.fill(0xff0d0b0a);
  const { xy, codes, palette: colours, hidden } = map;
  const count = xy.length / 2;
  const radius = Math.max(1, Math.round((count > 30000 ? 1 : count > 5000 ? 1.5 : 2.5) * ratio));
  // Half the width of each row of a dot, which is round from a radius of 2 on.
  const spans = Array.from({ length: 2 * radius }, (_, row) => Math.max(1, Math.round(Math.sqrt(radius * radius - (row - radius + 0.5) ** 2))));
  const shown = new Uint8Array(256).fill(1);
  for (const code of hidden) shown[code] = 0;
  // What is unknown lies below.
  for (let pass = 0; pass < 2; pass++) {
    for (let at = 0; at < count; at++) {
      const code = codes ? codes[at] : 0;
      if ((code === NOTHING) !== (pass === 0) || !shown[code]) continue;
      const x = (left + xy[2 * at] * half) | 0, y = (top - xy[2 * at + 1] * half) | 0;
      if (x < radius || y < radius || x >= width - radius || y >= height - radius) continue;
      const colour = colours[code];
      for (let row = -radius; row < radius; row++) {
        const start = (y + row) * width + x, across = spans[row + radius];
        for (let place = start - across; place < start + across; place++) out[place] = colour;
      }
    }
  }
  drawing.putImageData(pixels, 0, 0);
  over();
  map.frames.push(performance.now() - began);
  if (map.frames.length > 120) map.frames.shift();
  find("stage").dataset.frameMs = map.frames.at(-1).toFixed(2);
}

function over() {
  const { width, height, half, left, top, ratio } = view();
  const canvas = find("over");
  canvas.width = width; canvas.height = height;
  const drawing = canvas.getContext("2d");
  const place = (at) => [left + map.xy[2 * at] * half, top - map.xy[2 * at + 1] * half];
  drawing.lineWidth = 1.5 * ratio;
  drawing.strokeStyle = "#ffffff";
  for (const at of map.chosen.slice(0, 5000)) { const [x, y] = place(at); drawing.strokeRect(x - 3 * ratio, y - 3 * ratio, 6 * ratio, 6 * ratio); }
  if (map.cursor >= 0) {
    const [x, y] = place(map.cursor);
    drawing.lineWidth = 2.5 * ratio;
    drawing.beginPath(); drawing.arc(x, y, 9 * ratio, 0, 7); drawing.stroke();
  }
  if (map.lasso && map.lasso.length > 1) {
    drawing.beginPath();
    map.lasso.forEach(([x, y], number) => (number ? drawing.lineTo(x, y) : drawing.moveTo(x, y)));
    drawing.closePath(); drawing.fillStyle = "rgba(255,255,255,.14)"; drawing.fill(); drawing.stroke();
  }
}

const visible = (at) => !map.codes || !map.hidden.has(map.codes[at]);

function nearest(x, y, within) {
  const { half, left, top } = view();
  const wantedX = (x - left) / half, wantedY = (top - y) / half;
  let best = -1, closest = (within / half) ** 2;
  for (let at = 0; at < map.rows.length; at++) {
    const dx = map.xy[2 * at] - wantedX, dy = map.xy[2 * at + 1] - wantedY, distance = dx * dx + dy * dy;
    if (distance < closest && visible(at)) { closest = distance; best = at; }
  }
  return best;
}

// The nearest point in a direction: what lies to its side counts as farther.
function step(dx, dy) {
  const from = map.cursor < 0 ? { x: map.x, y: map.y } : { x: map.xy[2 * map.cursor], y: map.xy[2 * map.cursor + 1] };
  let best = -1, closest = Infinity;
  for (let at = 0; at < map.rows.length; at++) {
    if (at === map.cursor || !visible(at)) continue;
    const x = map.xy[2 * at] - from.x, y = map.xy[2 * at + 1] - from.y;
    const along = x * dx + y * dy, aside = Math.abs(x * dy - y * dx);
    if (map.cursor >= 0 && (along <= 0 || aside > along)) continue;
    const distance = Math.hypot(x, y) + aside;
    if (distance > 0 && distance < closest) { closest = distance; best = at; }
  }
  if (best >= 0) point(best, true);
}

let tipped = -1;

async function point(at, spoken = false) {
  map.cursor = at;
  if (at >= 0) map.last = at;
  if (map.xy) over();
  const tip = find("tip");
  if (at < 0) { tip.hidden = true; tipped = -1; return; }
  const row = map.rows[at];
  if (tipped === row) return;
  tipped = row;
  const { half, left, top, ratio } = view();
  const x = (left + map.xy[2 * at] * half) / ratio, y = (top - map.xy[2 * at + 1] * half) / ratio;
  const stage = find("stage");
  const label = map.colouring && map.colouring.kind === "classes" && map.codes[at] !== NOTHING ? map.colouring.classes[map.codes[at]] : "";
  tip.replaceChildren(asked.store.pictured ? picture(asked.address(row, "small"), label || "image", "large") : absent("image", "large"), make("p", {}, label || "image"));
  tip.style.left = `${Math.max(4, Math.min(x + 14, stage.clientWidth - 138))}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 14, stage.clientHeight - 170))}px`;
  tip.hidden = false;
  if (spoken) say(`Image ${at + 1} of ${map.rows.length}${label ? `, ${label}` : ""}`);
}

function inside(polygon, x, y) {
  let within = false;
  for (let at = 0, before = polygon.length - 1; at < polygon.length; before = at++) {
    const [ax, ay] = polygon[at], [bx, by] = polygon[before];
    if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
}

function enclosed(polygon) {
  const { half, left, top } = view();
  const found = [];
  for (let at = 0; at < map.rows.length; at++) if (visible(at) && inside(polygon, left + map.xy[2 * at] * half, top - map.xy[2 * at + 1] * half)) found.push(at);
  return found;
}

// A mouse on its way to the button has left the image that it means.
function around() {
  if (!map.xy) return;
  if (map.cursor < 0 && map.last < 0) step(1, 0);
  const middle = map.cursor >= 0 ? map.cursor : map.last;
  if (middle < 0) return;
  const x = map.xy[2 * middle], y = map.xy[2 * middle + 1];
  const distance = (at) => (map.xy[2 * at] - x) ** 2 + (map.xy[2 * at + 1] - y) ** 2;
  choose([...map.rows.keys()].filter(visible).sort((one, other) => distance(one) - distance(other)).slice(0, 50));
}

async function choose(points) {
  map.chosen = points;
  if (map.xy) over();
  find("chosen-count").textContent = points.length ? `${counted(points.length, "image")}${points.length > 60 ? ", the first 60 shown" : ""}` : "Nothing selected.";
  find("export").hidden = find("clear").hidden = !points.length;
  find("chosen").replaceChildren();
  if (!points.length) return;
  say(`${counted(points.length, "image")} selected`);
  const rows = points.slice(0, 60).map((at) => map.rows[at]);
  const found = await post("/rows", { store: asked.store.name, rows });
  find("chosen").replaceChildren(...found.images.map((facts) => {
    const label = facts.labels.join(", ") || "no label";
    return make("li", {}, make("button", { type: "button", className: "case", title: facts.image_id, "aria-label": `Search from this image: ${label}`, onclick: () => asked.search(facts.row) }, facts.pictured ? picture(asked.address(facts.row, "small"), "") : absent(label), make("span", { className: "words" }, label)));
  }));
}

async function exported() {
  const rows = map.chosen.map((at) => map.rows[at]);
  const found = await post("/rows", { store: asked.store.name, rows, brief: true });
  // A cell that a spreadsheet would take for a formula is kept as text.
  const cell = (text) => `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  saved("selected.csv", ["row,image_id,study_id", ...found.images.map(([row, image, study]) => `${row},${cell(image)},${cell(study)}`)].join("\n") + "\n", "text/csv");
}

function zoom(factor, x, y) {
  const before = view();
  const mapX = (x - before.left) / before.half, mapY = (before.top - y) / before.half;
  map.scale = Math.min(400, Math.max(0.5, map.scale * factor));
  const after = view();
  map.x += mapX - (x - after.left) / after.half;
  map.y += mapY - (after.top - y) / after.half;
  redraw();
}

function wire() {
  wired = true;
  const canvas = find("over");
  let drag = null;
  const at = (event) => { const box = canvas.getBoundingClientRect(), { ratio } = size(); return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio]; };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const [x, y] = at(event);
    if (map.lassoing) map.lasso = [[x, y]];
    else drag = { x, y, fromX: map.x, fromY: map.y, moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (map.lasso) { map.lasso.push([x, y]); over(); return; }
    if (drag) {
      if (Math.hypot(x - drag.x, y - drag.y) > 4) drag.moved = true;
      if (drag.moved) { const { half } = view(); map.x = drag.fromX - (x - drag.x) / half; map.y = drag.fromY + (y - drag.y) / half; redraw(); }
      return;
    }
    if (map.xy) point(nearest(x, y, 14 * size().ratio));
  });
  canvas.addEventListener("pointerup", (event) => {
    const [x, y] = at(event);
    if (map.lasso) {
      const line = map.lasso;
      map.lasso = null;
      lassoing(false);
      choose(enclosed(line));
    } else if (drag && !drag.moved) {
      const found = nearest(x, y, 14 * size().ratio);
      if (found >= 0) asked.search(map.rows[found]);
    }
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => { drag = map.lasso = null; over(); });
  canvas.addEventListener("pointerleave", () => { if (!drag && !map.lasso && document.activeElement !== canvas) point(-1); });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY * 0.0015), ...at(event)); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const { width, height } = size();
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (moves[event.key]) step(...moves[event.key]);
    else if (event.key === "Enter" && map.cursor >= 0) asked.search(map.rows[map.cursor]);
    else if (event.key === "s" || event.key === "S") around();
    else if (event.key === "+" || event.key === "=") zoom(1.4, width / 2, height / 2);
    else if (event.key === "-") zoom(1 / 1.4, width / 2, height / 2);
    else if (event.key === "Escape") { lassoing(false); choose([]); point(-1); }
    else return;
    event.preventDefault();
  });
  const lassoing = (on) => { map.lassoing = on; find("lasso").setAttribute("aria-pressed", String(on)); };
  find("lasso").addEventListener("click", () => lassoing(!map.lassoing));
  find("near").addEventListener("click", around);
  find("home").addEventListener("click", home);
  find("export").addEventListener("click", exported);
  find("clear").addEventListener("click", () => choose([]));
  new ResizeObserver(redraw).observe(find("stage"));
}
