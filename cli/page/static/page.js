// The page: what is chosen, what is asked, and what is shown of it.

import { answerOf } from "./answer.js";
import { absent, complain, counted, find, get, make, percent, picture, post, say, send } from "./dom.js";
import { openMap } from "./map.js";
import { showAudit, showRun } from "./documents.js";
import { show } from "./viewer.js";

const VIEWS = ["cases", "map", "runs", "audit"];
const KEPT_SENT = 12;
// What is looked at is an entry of the browser's history: a store, a run, a view, and what is asked.
const state = { stores: [], now: { store: "", run: "", view: "cases", query: null }, turn: 0, sent: new Map() };

const storeNamed = (name) => state.stores.find((store) => store.name === name);
const here = () => storeNamed(state.now.store);
const runNamed = (name) => here().runs.find((run) => run.name === name);
const usualRun = (store) => (store.runs.length && store.runs[0].own ? store.runs[0].name : "");
const address = (row, size) => `/stores/${encodeURIComponent(state.now.store)}/rows/${row}/${size}`;

async function guarded(work) {
  complain("");
  try {
    await work();
  } catch (error) {
    complain(error.message);
  }
}

async function begin() {
  const contents = await (await get("/contents")).json();
  state.stores = contents.stores;
  state.limit = contents.limit_bytes;
  find("store").replaceChildren(...state.stores.map((store) => make("option", { value: store.name }, `${store.name} (${store.images.toLocaleString("en")})`)));
  find("store").addEventListener("change", () => guarded(() => chooseStore(find("store").value)));
  find("run").addEventListener("change", () => guarded(() => chooseRun(find("run").value)));
  for (const view of VIEWS) find(`to-${view}`).addEventListener("click", () => guarded(() => go({ view })));
  wireDrop();
  find("words").addEventListener("submit", (event) => { event.preventDefault(); const text = find("text").value.trim(); if (text) guarded(() => go({ query: { text } })); });
  window.addEventListener("popstate", (event) => { if (event.state) guarded(() => go(event.state, { again: true })); });
  find("skip").addEventListener("click", (event) => { event.preventDefault(); find("main").focus(); });
  // A page that is loaded anew, or come back to from a report, shows what it showed.
  await go(history.state || named(location.hash), { again: true });
}

// What an address names: #STORE/row-12, #STORE/map.
function named(hash) {
  let store, place;
  try {
    [store, place] = hash.slice(1).split("/").map(decodeURIComponent);
  } catch { /* no address of this page */ }
  const row = /^row-(\d+)$/.exec(place || "");
  return { store, query: row ? { rows: [Number(row[1])] } : null, view: VIEWS.includes(place) ? place : "cases" };
}

const nameOf = ({ store, view, query }) => `#${encodeURIComponent(store)}/${view === "cases" && query && query.rows ? `row-${query.rows[0]}` : view}`;

async function chooseStore(store) {
  await go({ store, run: usualRun(storeNamed(store)), query: null });
}

async function chooseRun(run) {
  const { query } = state.now;
  const kept = query && state.sent.get(query.sent);
  if (!kept) return go({ run });
  // An answer is a run's: what was sent is answered anew.
  drawRun(state.now.run = run);
  await sendFiles(kept.files);
}

// Go to another store, run, view or question; a turn that is overtaken by another one shows nothing.
async function go(change, { again = false } = {}) {
  const turn = ++state.turn, before = state.now, now = { ...before, ...change };
  if (!storeNamed(now.store)) Object.assign(now, { store: state.stores[0].name, query: null });
  if (now.query && now.query.sent !== undefined && !state.sent.has(now.query.sent)) now.query = null;
  state.now = now;
  if (now.store !== before.store) drawStore();
  if (now.run === undefined || (now.run && !runNamed(now.run)) || (now.store !== before.store && change.run === undefined)) now.run = usualRun(here());
  if (now.store !== before.store || now.run !== before.run) drawRun(now.run);
  drawView(now.view);
  const reached = () => { if (turn === state.turn) history[again ? "replaceState" : "pushState"](now, "", nameOf(now)); };
  if (now.view === "cases") return showAsked(now, { turn, reached, before });
  reached();
  const search = (row) => guarded(() => go({ view: "cases", query: { rows: [row] } }));
  if (now.view === "map") await openMap({ store: here(), run: now.run, address, search });
  if (now.view === "runs") await showRun(now.run);
  if (now.view === "audit") await showAudit(now.store, address, search);
}

function drawStore() {
  const store = here(), { name } = store;
  find("store").value = name;
  find("phantom").hidden = !store.phantom;
  find("words").hidden = true;
  get(`/stores/${encodeURIComponent(name)}/words`).then((answer) => answer.json()).then((found) => { if (state.now.store === name) find("words").hidden = !found.words; }, () => {});
  find("run").replaceChildren(...store.runs.map((run) => make("option", { value: run.name }, run.own ? run.name : `${run.name} (of another store)`)), make("option", { value: "" }, "none"));
  drawFilters();
}

function drawView(name) {
  for (const view of VIEWS) {
    find(`${view}-view`).hidden = view !== name;
    if (view === name) find(`to-${view}`).setAttribute("aria-current", "page");
    else find(`to-${view}`).removeAttribute("aria-current");
  }
}

function drawRun(name) {
  find("run").value = find("run").title = name;
  const columns = name ? runNamed(name).columns : {};
  find("metadata").replaceChildren(...Object.entries(columns).map(([column, values]) =>
    make("label", {}, `${column} `, make("select", { name: column }, make("option", { value: "" }, "as the file says"), ...values.map((value) => make("option", { value }, value))))));
}

// What is sent.

function wireDrop() {
  const { classList } = document.body, input = find("file");
  for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => { if (event.dataTransfer.types.includes("Files")) { event.preventDefault(); classList.add("over"); } });
  document.addEventListener("dragleave", (event) => { if (event.relatedTarget === null) classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    classList.remove("over");
    guarded(async () => sendFiles(await dropped(event.dataTransfer)));
  });
  input.addEventListener("change", () => { const files = [...input.files]; input.value = ""; guarded(() => sendFiles(files)); });
}

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  const files = [];
  async function walk(entry) {
    if (entry.isFile) files.push(await new Promise((done, failed) => entry.file(done, failed)));
    else {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((done, failed) => reader.readEntries(done, failed));
        if (!some.length) break;
        for (const inside of some) await walk(inside);
      }
    }
  }
  if (!entries.length) return [...transfer.files];
  for (const entry of entries) await walk(entry);
  return files.filter((file) => !file.name.startsWith("."));
}

async function sendFiles(files) {
  if (!files.length) return;
  const size = files.reduce((sum, file) => sum + file.size, 0);
  if (size > state.limit) throw new Error(`These files have ${Math.ceil(size / 1e6)} MB; at most ${Math.floor(state.limit / 1e6)} MB are taken at once (embed serve --max-upload-mb).`);
  const form = new FormData();
  const metadata = Object.fromEntries([...find("metadata").querySelectorAll("select")].map((choice) => [choice.name, choice.value]));
  form.append("options", JSON.stringify({ store: state.now.store, run: state.now.run, metadata }));
  // The page is not told what files are called: names of archives are often those of patients.
  for (const file of files) form.append("file", file, "file");
  find("drop").classList.add("busy");
  say(`Sending ${counted(files.length, "file")}`);
  // What was shown before is no answer to this.
  state.now = { ...state.now, view: "cases", query: null };
  drawView("cases");
  find("query").hidden = find("answer").hidden = true;
  find("found").replaceChildren();
  find("found-count").textContent = "";
  let sent;
  try {
    sent = await send(form);
  } finally {
    find("drop").classList.remove("busy");
  }
  state.sent.set(sent.id, { sent, files });
  while (state.sent.size > KEPT_SENT) state.sent.delete(state.sent.keys().next().value);
  await go({ view: "cases", query: { sent: sent.id } });
}

function showAnswers(sent) {
  document.body.classList.add("slim");
  const enlarge = (number) => showSent(sent, number);
  const lumbar = sent.answers.some((answer) => answer.lumbar);
  document.body.classList.toggle("wide", lumbar);
  const notices = sent.notices.map((line) => make("p", { className: "note" }, line));
  find("answer-body").replaceChildren(...notices, ...sent.answers.map((answer) => answerOf(answer, sent.table, sent, enlarge)));
  find("answer").hidden = !sent.answers.length && !notices.length;
  find("query").hidden = false;
  const what = counted(sent.images, sent.crops ? "crop" : "image");
  find("query-title").textContent = sent.images === 1 ? "What you sent" : `What you sent: ${what}${sent.crops ? " around its levels" : ""}`;
  find("query-facts").replaceChildren(sent.pictures.length > 1 ? make("div", { className: "strip", tabIndex: 0, role: "group", "aria-label": "Images that were sent" },
    ...sent.pictures.map((_, number) => make("button", { type: "button", onclick: () => enlarge(number) }, picture(`/sent/${sent.id}/${number}/small`, `Sent image ${number + 1}`, "thumb")))) : "");
  if (sent.pictures.length) showSent(sent, 0);
  else find("viewer").replaceChildren();
}

function showSent(sent, number) {
  const base = `/sent/${sent.id}/${number}`;
  show(find("viewer"), { image: `${base}/large`, grey: sent.pictures[number].windowed ? `${base}/grey` : "", alt: `Sent image ${number + 1}` });
}

// What is asked.

async function showAsked(now, { turn, reached, before }) {
  const query = now.query || { rows: [here().first_row] };
  if (query.sent !== undefined) showAnswers(state.sent.get(query.sent).sent);
  if (here().first_row === null) { reached(); return showNone(query); }
  const choices = find("filters").elements;
  const question = { store: now.store, run: now.run, k: Number(choices.k.value), where: choices.where.value.split(";").map((text) => text.trim()).filter(Boolean), equals: {}, group: choices.images.checked ? "image" : "study", same_patient: choices.patient.checked, ...query };
  for (const choice of find("filters").querySelectorAll("select[data-column]")) if (choice.value) question.equals[choice.dataset.column] = choice.value;
  let found;
  try {
    found = await post("/search", question);
  } catch (error) {
    if (turn === state.turn) now.query = before.query;
    throw error;
  }
  if (turn !== state.turn) return;
  reached();
  if (query.rows) showRow(found.query[0], now.query ? "Asked: an image of the store" : "To begin with: the store's first image");
  if (query.text) { find("query").hidden = find("answer").hidden = true; document.body.classList.remove("wide"); }
  showCases(found, query);
  if (!before.store) return;
  say(`${counted(found.cases.length, "similar case")}`);
  // The case that was chosen is gone: go on from the new ones, and not from the top.
  if (document.activeElement === document.body) find("found").focus({ preventScroll: true });
}

function showNone(query) {
  if (query.sent === undefined) find("query").hidden = find("answer").hidden = true;
  find("found").replaceChildren();
  find("found-count").textContent = "This store has no image with a vector yet; in the shell: embed extract";
}

function showRow(facts, title) {
  document.body.classList.add("slim");
  find("query").hidden = false;
  find("answer").hidden = true;
  document.body.classList.remove("wide");
  find("query-title").textContent = title;
  show(find("viewer"), { image: facts.pictured ? address(facts.row, "large") : "", grey: facts.pictured && facts.windowed ? address(facts.row, "grey") : "", alt: describe(facts) });
  const terms = [["labels", facts.labels.join(", ") || "none"], ["image", facts.image_id], ["patient", facts.patient || "unknown"], ...Object.entries(facts.facts)];
  find("query-facts").replaceChildren(make("dl", { className: "facts" }, ...terms.flatMap(([name, value]) => [make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, String(value))])));
}

const describe = (facts) => [facts.labels.join(", ") || "no label", facts.facts.anatomy || facts.facts.plane || facts.facts.modality || ""].filter(Boolean).join(", ");

function showCases(found, query) {
  const list = find("found");
  list.replaceChildren(...found.cases.map((one) => make("li", {}, caseOf(one))));
  const among = `among ${counted(found.compared, "image")}`;
  find("found-count").textContent = found.cases.length ? `${counted(found.cases.length, "case")} ${among}` : found.why_none || `none ${among}`;
  find("found-title").textContent = query.text ? `Cases like "${query.text}"` : "Similar cases";
  find("found-notes").replaceChildren(...found.notices.map((line) => make("p", { className: "note" }, line)));
}

// The end of an id tells neighbours apart.
const short = (id) => (id.length > 30 ? id.split("/").slice(-2).join("/") : id);

function caseOf(one) {
  const said = one.run ? one.run.targets.map((target) => make("span", { className: "said", title: one.run.source === "predicted" ? "the run may have learned from this case" : "said by a head that never saw this patient" }, `run: ${one.run.of > 1 ? `${target.target} ` : ""}${target.class} ${percent(target.share)}`)) : [];
  // A bare number would say nothing.
  const facts = [...Object.values(one.facts).filter((value) => !/^-?[\d.]+$/.test(String(value))).slice(0, 4), ...(one.images > 1 ? [`${one.images} images`] : [])].join(", ");
  return make("button", { type: "button", className: "case", "aria-label": `Search from this case: ${describe(one)}, cosine ${one.cosine.toFixed(2)}`, onclick: () => guarded(() => go({ query: { rows: [one.row] } })) },
    one.pictured ? picture(address(one.row, "small"), "") : absent("case"),
    make("span", { className: "words" },
      make("span", { className: "top" }, make("span", {}, one.labels.join(", ") || "no label"), make("span", { title: "cosine" }, one.cosine.toFixed(2))),
      ...said, make("span", { className: "id" }, facts), make("span", { className: "id line", title: one.study }, short(one.study))));
}

function drawFilters() {
  const place = find("filters");
  const choices = Object.entries(here().choices).slice(0, 5).map(([column, values]) => {
    const choice = make("select", {}, make("option", { value: "" }, "all"), ...values.map((value) => make("option", { value }, value)));
    choice.dataset.column = column;
    return make("label", {}, column.replaceAll("_", " "), choice);
  });
  place.replaceChildren(...choices,
    make("label", {}, "Further conditions", make("input", { type: "text", name: "where", placeholder: "age>=65; site!=A", autocomplete: "off" })),
    make("label", {}, "Cases", make("select", { name: "k" }, ...[12, 24, 48, 96].map((count) => make("option", { value: count }, count)))),
    make("label", { className: "check" }, make("input", { type: "checkbox", name: "images" }), "every image of a study"),
    make("label", { className: "check" }, make("input", { type: "checkbox", name: "patient" }), "same patient too"));
  // A text is asked with Enter, or when one goes on to something else.
  let asked = "";
  const now = () => { asked = place.elements.where.value; guarded(() => go({}, { again: true })); };
  place.onchange = (event) => { if (event.target.name !== "where") now(); };
  place.onsubmit = (event) => { event.preventDefault(); now(); };
  place.elements.where.onblur = () => { if (place.elements.where.value !== asked) now(); };
}

guarded(begin);
