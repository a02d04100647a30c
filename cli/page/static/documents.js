// What was measured of a run, and what an audit found.

import { counted, find, get, make, picture, post } from "./dom.js";

export async function showRun(run) {
  const place = find("run-body");
  if (!run) {
    place.replaceChildren(make("h2", {}, "No run"), make("p", {}, "This store has no run that could answer. In the shell: embed probe"));
    return;
  }
  const found = await (await get(`/runs/${encodeURIComponent(run)}`)).json();
  const number = (value) => (value === null || value === undefined ? "" : value.toFixed(3));
  const rows = found.metrics.map((metric) => make("tr", {}, make("th", { scope: "row" }, metric.name), make("td", { className: "number" }, number(metric.value)), make("td", { className: "number" }, metric.low === null || metric.low === undefined ? "no interval" : `${number(metric.low)} to ${number(metric.high)}`), make("td", { className: "number" }, String(metric.n ?? ""))));
  const head = make("tr", {}, ...["Metric", "Value", "95 % interval", "n"].map((name, place) => make("th", { scope: "col", className: place ? "number" : "" }, name)));
  place.replaceChildren(
    make("h2", {}, found.name),
    make("p", { className: "small" }, `Run ${found.run_id}. Learned from ${found.fitted ?? "?"} units, evaluated on ${found.evaluated ?? "?"}.`),
    ...warnings(found.warnings),
    found.report ? make("p", {}, make("a", { target: "_blank", rel: "noopener", href: `/runs/${encodeURIComponent(run)}/report` }, "The whole report: curves, subgroups, confident errors")) : make("p", { className: "small" }, "No report was drawn; in the shell: embed report RUN"),
    make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Metrics" }, make("table", {}, make("caption", { className: "visually-hidden" }, "Metrics of the run"), make("thead", {}, head), make("tbody", {}, ...rows))));
}

// Of many targets many things are unusual: more than a few are folded away.
function warnings(found) {
  const lines = found.map((one) => make("p", { className: "note warning" }, `${one.target ? `${one.target.replaceAll("_", " ")}: ` : ""}${one.text}`));
  if (lines.length <= 3) return lines;
  return [make("details", {}, make("summary", {}, `${lines.length} warnings`), ...lines)];
}

let looked = 0;

export async function showAudit(store, address, search) {
  const turn = ++looked;
  const base = `/stores/${encodeURIComponent(store)}/audit`;
  const place = find("audit-body");
  const found = await (await get(base)).json();
  if (turn !== looked) return;
  if (found.state === "done") return place.replaceChildren(...findings(found, address, search));
  const begin = make("button", { type: "button", onclick: async () => { begin.disabled = true; await post(base, {}); await showAudit(store, address, search); } }, "Audit this store");
  const words = { none: "Looks for copies, patients on both sides of a split, and images that are not what their rows say. Nothing is changed.", failed: found.error, working: found.total ? `Looking: ${found.done.toLocaleString("en")} of ${found.total.toLocaleString("en")} pictures` : "Looking ..." };
  place.replaceChildren(make("h2", {}, "Audit"), make("p", { className: found.state === "failed" ? "note warning" : "" }, words[found.state]), found.state === "working" ? "" : begin);
  if (found.state === "working") setTimeout(() => { if (turn === looked && !find("audit-view").hidden) showAudit(store, address, search); }, 700);
}

function findings(found, address, search) {
  const parts = [make("h2", {}, "Audit"), make("p", { className: "small" }, `${counted(found.images, "image")}, of ${found.pictures.toLocaleString("en")} the pixels. With embed audit --keep keep.csv the shell writes what to leave out.`), ...found.notices.map((line) => make("p", { className: "note" }, line))];
  for (const kind of found.kinds) {
    if (!kind.count) continue;
    parts.push(make("h3", {}, `${kind.kind.replaceAll("-", " ")}: ${kind.count.toLocaleString("en")}`), make("p", { className: "small" }, `${kind.means}${kind.count > kind.findings.length ? `; the first ${kind.findings.length} are shown` : ""}`));
    parts.push(make("ul", { className: "findings" }, ...kind.findings.map((one) => make("li", {}, make("p", {}, `${one.why}${one.more ? ` (${one.more} more images)` : ""}`),
      make("div", { className: "strip", tabIndex: 0, role: "group", "aria-label": `Images of: ${one.why}` }, ...one.images.map((image) => make("button", { type: "button", title: image.image_id, className: image.left_out ? "out" : "", onclick: () => search(image.row) }, picture(address(image.row, "small"), `${image.image_id}${image.left_out ? ", better left out" : ""}`, "thumb"))))))));
  }
  const absent = found.kinds.filter((kind) => !kind.count).map((kind) => kind.kind);
  const said = (words, kinds) => { if (kinds.length) parts.push(make("p", {}, `${words}: ${kinds.join(", ").replaceAll("-", " ")}.`)); };
  said("Nothing found", absent.filter((kind) => !found.unseen.includes(kind)));
  said("Not looked at, or not in all images", absent.filter((kind) => found.unseen.includes(kind)));
  return parts;
}
