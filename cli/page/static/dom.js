// Elements, requests, and what is said to the user.

export const find = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function say(text) {
  find("status").textContent = text;
}

export function complain(text) {
  const place = find("error");
  place.textContent = text;
  place.hidden = !text;
  if (text) place.scrollIntoView({ block: "nearest" });
}

async function answered(response) {
  if (response.ok) return response;
  let why = `the page answered ${response.status}`;
  try {
    why = (await response.json()).error || why;
  } catch { /* no words came with it */ }
  throw new Error(why);
}

export const get = async (address) => answered(await fetch(address, { credentials: "same-origin" }));

export const post = async (address, question) =>
  (await answered(await fetch(address, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(question) }))).json();

export const send = async (form) => (await answered(await fetch("/send", { method: "POST", body: form }))).json();

export const percent = (share) => {
  const shown = 100 * share;
  return shown > 0 && shown < 1 ? "<1\u00a0%" : shown < 100 && shown > 99 ? ">99\u00a0%" : `${Math.round(shown)}\u00a0%`;
};

export const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export const absent = (alt, name = "shot") => make("span", { className: `${name} gone`, role: "img", "aria-label": `${alt} (no picture)` }, "no picture");

export function picture(address, alt, name = "shot") {
  const image = make("img", { src: address, alt, className: name, loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(absent(alt, name)), { once: true });
  return image;
}

export async function copied(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it and copy";
  }
  say(button.textContent);
  setTimeout(() => { button.textContent = before; }, 1500);
}

export function saved(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
