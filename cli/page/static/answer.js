// What a run says of what was sent: in words, as bars, and for a spine as a table of its levels.

import { copied, counted, make, percent, picture } from "./dom.js";

export function answerOf(answer, table, sent, enlarge) {
  const body = make("div", {});
  body.append(make("p", { className: "small" }, `${answer.unit ? `Known to the store as ${answer.unit}. ` : answer.stored ? "The store holds its images. " : ""}From ${counted(answer.images, sent.crops ? "crop" : "image")}.`));
  for (const note of answer.notes) body.append(make("p", { className: `note ${note.kind}` }, note.text));
  if (answer.lumbar && table) body.append(spine(answer, table, sent, enlarge));
  else for (const target of answer.targets) body.append(targetOf(target, sent, enlarge));
  body.append(copies(answer));
  return body;
}

function targetOf(target, sent, enlarge) {
  const part = make("div", { className: "target" }, make("h3", {}, target.title));
  if (target.bars.length) part.append(bars(target));
  if (target.words) part.append(make("p", {}, target.words));
  if (target.set_words) part.append(make("p", { className: "small" }, target.set_words));
  const weighed = target.pictures.filter((one) => one.weight !== null);
  if (weighed.length > 1) part.append(make("p", { className: "small" }, "The images that counted most:"), strip(weighed, sent, enlarge, target.title));
  return part;
}

function bars(target) {
  const place = make("div", { className: "bars" });
  const none = !target.bars.some((bar) => bar.in_set);
  for (const bar of target.bars) {
    // What the set holds is bold; without a set, what was decided for is filled.
    const fill = make("span", { className: bar.in_set || (none && bar.name === target.decision) ? "fill held" : "fill" });
    fill.style.width = `${Math.max(0.5, 100 * bar.share)}%`;
    place.append(make("span", { className: bar.in_set ? "name held" : "name" }, bar.name), make("span", { className: "track" }, fill), make("span", { className: "share" }, percent(bar.share)));
  }
  return place;
}

function strip(shown, sent, enlarge, title) {
  return make("div", { className: "strip", tabIndex: 0, role: "group", "aria-label": `Images behind ${title}` },
    ...shown.map((one, number) => make("button", { type: "button", title: one.weight === null ? undefined : `weight ${percent(one.weight)}`, onclick: () => enlarge(one.picture) },
      picture(`/sent/${sent.id}/${one.picture}/small`, `Image ${number + 1} behind ${title}${one.weight === null ? "" : `, weight ${percent(one.weight)}`}`, "thumb"))));
}

function spine(answer, table, sent, enlarge) {
  const named = new Map(answer.targets.map((target) => [target.name, target]));
  const grades = new Map();
  for (const target of answer.targets) target.bars.forEach((bar, number) => grades.set(bar.name, number));
  const detail = make("div", { className: "detail", "aria-live": "polite" });
  const open = (target) => {
    const shown = target.pictures.slice(0, 6);
    detail.replaceChildren(targetOf(target, sent, enlarge));
    if (!shown.length) return;
    detail.prepend(make("div", { className: "picture" }, picture(`/sent/${sent.id}/${shown[0].picture}/large`, `The image that counted most for ${target.title}`, "large")));
    if (shown.length > 1) detail.append(strip(shown, sent, enlarge, target.title));
  };
  const asked = table.columns.map((_, column) => table.rows.some((row) => named.has(row.targets[column])));
  const rows = table.rows.map((row) => {
    const own = row.targets.filter((_, column) => asked[column]).map((name) => named.get(name));
    const cells = own.map((target) => {
      if (!target) return make("td", {}, "not asked");
      if (!target.bars.length) return make("td", {}, "no image");
      const share = target.bars.find((bar) => bar.name === target.decision).share;
      return make("td", {}, make("button", { type: "button", className: `grade-${grades.get(target.decision)}`, onclick: () => open(target), "aria-label": `${row.level}, ${target.title}: ${target.decision}, ${percent(share)}` }, target.decision, make("br"), make("span", { className: "small" }, percent(share))));
    });
    const seen = new Set();
    for (const target of own) for (const one of (target ? target.pictures.slice(0, 1) : [])) seen.add(one.picture);
    const thumbs = [...seen].slice(0, 5).map((number) => ({ picture: number, weight: null }));
    return make("tr", {}, make("th", { scope: "row" }, row.level), ...cells, make("td", {}, thumbs.length ? strip(thumbs, sent, enlarge, row.level) : "none"));
  });
  const head = make("tr", {}, make("th", { scope: "col" }, "Level"), ...table.columns.filter((_, column) => asked[column]).map((name) => make("th", { scope: "col" }, name)), make("th", { scope: "col" }, "Slices that mattered"));
  const whole = make("table", { className: "spine" }, make("caption", { className: "visually-hidden" }, "Severity of each condition at each level"), make("thead", {}, head), make("tbody", {}, ...rows));
  const worst = answer.targets.filter((target) => target.bars.length).sort((one, other) => other.bars.at(-1).share - one.bars.at(-1).share)[0];
  if (worst) open(worst);
  return make("div", { className: "spread" }, make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Levels of the spine" }, whole), detail);
}

function copies(answer) {
  const place = make("div", { className: "target" });
  const texts = [["Copy as JSON", JSON.stringify(answer.compact)], ...(answer.codes ? [["Copy severity codes", answer.codes]] : [])];
  const buttons = texts.map(([name, text]) => { const button = make("button", { type: "button" }, name); button.addEventListener("click", () => copied(text, button)); return button; });
  const text = make("pre", { tabIndex: 0, "aria-label": "The answer as JSON" }, answer.codes || JSON.stringify(answer.compact, null, 1));
  place.append(make("p", { className: "row" }, ...buttons), answer.codes ? text : make("details", {}, make("summary", {}, "As JSON"), text), make("p", { className: "small" }, `Run ${answer.run_id}. ${answer.notice}`));
  return place;
}
