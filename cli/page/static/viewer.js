// One picture large; of a grey DICOM image its values, with window and level.

import { absent, get, make, picture } from "./dom.js";

export function show(place, { image, grey, alt }) {
  const frame = make("div", { className: "picture" }, image ? picture(image, alt, "large") : absent(alt, "large"));
  place.replaceChildren(frame);
  if (grey) windowed(place, frame, grey, alt);
}

async function windowed(place, frame, address, alt) {
  let bytes;
  try {
    bytes = await (await get(address)).arrayBuffer();
  } catch {
    return; // no grey values: the picture stays
  }
  if (!frame.isConnected) return;
  const head = new DataView(bytes);
  const height = head.getUint32(0, true), width = head.getUint32(4, true);
  const first = { low: head.getFloat32(8, true), high: head.getFloat32(12, true) };
  const inverted = head.getUint32(16, true) === 1;
  const values = new Float32Array(bytes, 20, width * height);
  let least = Infinity, most = -Infinity;
  for (const value of values) { if (value < least) least = value; if (value > most) most = value; }
  const range = Math.max(most - least, 1e-6);
  const canvas = make("canvas", { width, height, role: "img", "aria-label": `${alt}, window adjustable below` });
  const drawing = canvas.getContext("2d");
  const pixels = drawing.createImageData(width, height);
  const out = new Uint32Array(pixels.data.buffer);
  const now = { level: (first.low + first.high) / 2, width: first.high - first.low };

  function draw() {
    const low = now.level - now.width / 2, factor = 255 / Math.max(now.width, range / 4096);
    for (let at = 0; at < out.length; at++) {
      let grey = (values[at] - low) * factor;
      grey = grey < 0 ? 0 : grey > 255 ? 255 : grey;
      grey = (inverted ? 255 - grey : grey) | 0;
      out[at] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    drawing.putImageData(pixels, 0, 0);
    level.value = now.level; span.value = now.width;
    levelText.textContent = Math.round(now.level); spanText.textContent = Math.round(now.width);
  }
  const slider = (name, low, high, change) => make("input", { type: "range", min: low, max: high, step: range / 500, "aria-label": name, oninput: change });
  const level = slider("Window level", Math.min(least, first.low), Math.max(most, first.high), () => { now.level = Number(level.value); draw(); });
  const span = slider("Window width", range / 500, Math.max(range * 1.5, first.high - first.low), () => { now.width = Number(span.value); draw(); });
  const levelText = make("output"), spanText = make("output");
  const again = make("button", { type: "button", onclick: () => { now.level = (first.low + first.high) / 2; now.width = first.high - first.low; draw(); } }, "Reset window");
  let from = null;
  canvas.addEventListener("pointerdown", (event) => { from = { x: event.clientX, y: event.clientY, ...now }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    const step = range / canvas.clientWidth;
    now.width = Math.max(range / 500, from.width + (event.clientX - from.x) * step);
    now.level = from.level + (event.clientY - from.y) * step;
    draw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { from = null; });
  frame.replaceChildren(canvas);
  place.append(make("div", { className: "sliders" }, make("span", {}, "Level"), level, levelText, make("span", {}, "Width"), span, spanText), make("p", { className: "row" }, again, make("span", { className: "small" }, "Drag in the picture: across for width, up and down for level.")));
  draw();
}
