"use strict";
/* Images to predictions: chosen, dropped, pasted, or photographed; a card each, the latest first. */

const SHOWN = 5; // classes per image
const MOST_CARDS = 200, AT_ONCE = 4, ATTEMPTS = 30, PREVIEW = 320; // cards, requests, attempts, pixels
const STATUS = {
  review: "Low confidence",
  unknown: "Unlike the training images",
  failed: "Cannot be used",
};
const results = byId("results"), waiting = [];
let running = 0;

/** Add a card for each file, and predict it when its turn comes. */
function add(files) {
  for (const file of files) {
    const card = newCard(file.name || "pasted image");
    results.prepend(card);
    preview(file, card);
    waiting.push({ file, card });
  }
  while (results.children.length > MOST_CARDS) results.lastChild.remove();
  count();
  work();
}

function newCard(name) {
  return element("li", { class: "card", "aria-busy": "true" },
    element("div", { class: "frame" }, element("canvas", { role: "img", "aria-label": name })),
    element("div", { class: "answer" },
      element("p", { class: "name soft", text: name }), element("p", { class: "label", text: "…" })));
}

/** Draw a small version; formats that browsers cannot show, such as TIFF, have none. */
async function preview(file, card) {
  const canvas = card.querySelector("canvas");
  try {
    const bitmap = await createImageBitmap(file, { resizeWidth: PREVIEW, resizeQuality: "high" });
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  } catch {
    canvas.replaceWith(element("span", { class: "soft", text: "No preview" }));
  }
}

async function work() {
  if (running >= AT_ONCE || !waiting.length) return;
  running++;
  const { file, card } = waiting.shift();
  work();
  if (card.isConnected) show(card, await predict(file));
  running--;
  work();
}

/** Return a row, or a row with an error. */
async function predict(file) {
  try {
    for (let attempt = 1; ; attempt++) {
      const response = await request(`/v1/predict?top=${SHOWN}`, { method: "POST", body: file });
      const answer = await response.json();
      if (response.status === 503 && attempt < ATTEMPTS) { await pause(1000); continue; }
      if (response.status === 401) return { status: "failed", error: "open the address that tlcli printed" };
      return answer.predictions?.[0] ?? { status: "failed", error: answer.error.message };
    }
  } catch {
    return { status: "failed", error: "the connection to tlcli was lost" };
  }
}

function show(card, row) {
  const answer = card.querySelector(".answer"), label = answer.querySelector(".label");
  card.removeAttribute("aria-busy");
  card.dataset.status = row.status;
  label.textContent = row.label ?? STATUS.failed;
  if (row.status in STATUS && row.label) label.after(element("p", { class: "badge", text: STATUS[row.status] }));
  if (row.label) answer.append(bars(row)); else answer.append(element("p", { class: "reason", text: `${row.error}.` }));
  say(`${answer.querySelector(".name").textContent}: ${row.label ? `${row.label}, ${percent(row.confidence)}` : row.error}`);
  count();
}

/** List the most likely classes with their probabilities. */
function bars(row) {
  const list = element("dl", { class: "bars" });
  for (let rank = 1; rank <= SHOWN; rank++) {
    const name = rank === 1 ? row.label : row[`label_${rank}`], share = rank === 1 ? row.confidence : row[`confidence_${rank}`];
    if (name === undefined || name === null) break;
    const bar = element("i");
    bar.style.width = `${100 * share}%`;
    list.append(element("div", {}, element("dt", { text: name, title: name }),
      element("dd", { text: percent(share) }), element("dd", { class: "bar", "aria-hidden": "true" }, bar)));
  }
  return list;
}

/** Format a share; only exactly 1 is 100 %. Shares are rounded, so 0 is not known to be 0. */
function percent(share) {
  if (share < 0.01) return "< 1 %";
  return `${share < 1 ? Math.min(99, Math.round(100 * share)) : 100} %`;
}

function count() {
  const number = results.children.length, open = results.querySelectorAll("[aria-busy]").length;
  byId("bar").hidden = !number;
  byId("count").textContent = `${number} image${number === 1 ? "" : "s"}${open ? `, ${open} pending` : ""}`;
}

/** Announce to screen readers. */
function say(text) { byId("message").textContent = text; }

const zone = byId("zone");
byId("choose").onclick = () => byId("files").click();
byId("photograph").onclick = () => openCamera(add);
for (const id of ["files", "capture"]) byId(id).onchange = ({ target }) => { add([...target.files]); target.value = ""; };
byId("clear").onclick = () => { waiting.length = 0; results.replaceChildren(); count(); byId("choose").focus(); say("Cleared."); };
addEventListener("paste", ({ clipboardData }) => add([...clipboardData.files]));
let inside = 0; // dragenter and dragleave also fire between the elements of the page
addEventListener("dragenter", () => { inside++; zone.classList.add("over"); });
addEventListener("dragleave", () => { if (!--inside) zone.classList.remove("over"); });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  zone.classList.remove("over");
  add([...event.dataTransfer.files]);
});
describe().catch(() => say("The server does not answer."));
