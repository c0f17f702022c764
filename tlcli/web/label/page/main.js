"use strict";
/* The start of the page, and its clock: the state is asked for while features are computed and while nothing happens. */

const BUSY = 2000, QUIET = 6000; // milliseconds between two questions
let disconnected = false;

async function clock() {
  for (;;) {
    if (!document.hidden && !queue.length) await ask();
    await pause(!store.state || disconnected || computing(store.state) || !batch.items.length ? BUSY : QUIET);
  }
}

/** Ask for the state, and for a batch where one is missing. */
async function ask() {
  try {
    receive(await get("/api/state"));
    if (disconnected) reconnected();
    disconnected = false;
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    disconnected = true;
    return showProblem(error.message);
  }
  if ((batch.wanted || !batch.items.length) && !batch.loading) loadBatch();
}

function reconnected() {
  showProblem(null);
  reloadBroken(batch.items);
  if (document.body.dataset.view === "labeled") labeledChanged();
}

/** Keep the focus on the images when a button is pressed with the pointer, so that Enter does not press it again. */
function keepFocus(event) {
  const button = event.target.closest("#toolbar button, .switch button, .class, #bulk button, #back");
  if (button && !button.matches(":focus")) event.preventDefault();
}

function applyTileSize(size) {
  document.documentElement.style.setProperty("--tile", `${size}px`);
  layOut();
  spanGroups();
}

const savedSize = Number(remembered("tile", 0));
byId("tile-size").value = savedSize || parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--tile"));
if (savedSize) applyTileSize(savedSize);
byId("tile-size").addEventListener("input", (event) => { applyTileSize(event.target.value); remember("tile", event.target.value); });
document.addEventListener("mousedown", keepFocus);
matchMedia("(max-width: 52rem)").addEventListener("change", () => { if (document.body.dataset.view === "overview") showView("label"); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && !queue.length) ask(); });
byId("retry").addEventListener("click", () => { if (!queue.length) ask(); });
clock();
