// What was measured of a run, and what an audit found.

import { find, get, make } from "./dom.js";

export async function showRun(store, run) {
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
    ...found.warnings.map((line) => make("p", { className: "note warning" }, typeof line === "string" ? line : JSON.stringify(line))),
    found.report ? make("p", {}, make("a", { href: `/runs/${encodeURIComponent(run)}/report` }, "The whole report: curves, subgroups, confident errors")) : make("p", { className: "small" }, "No report was drawn; in the shell: embed report RUN"),
    make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Metrics" }, make("table", {}, make("caption", { className: "visually-hidden" }, "Metrics of the run"), make("thead", {}, head), make("tbody", {}, ...rows))));
}

export async function showAudit() {
  find("audit-body").replaceChildren();
}
