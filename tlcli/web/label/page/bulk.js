"use strict";
/* Accepting the images proposed as one class above a confidence, after a look at the least certain of them. */

const BORDERLINE = 24; // least certain images that must have been on screen
const LOOK = 400; // milliseconds on screen that count as a look
const looks = new Map(); // timers by tile
let observer = null;

const threshold = () => Number(byId("threshold").value) / 100;
const byConfidence = (a, b) => (a.confidence ?? 0) - (b.confidence ?? 0);
const above = (items) => items.filter((item) => (item.confidence ?? 0) >= threshold());
/** Return the images that would be accepted: those still open whose proposal was not changed. */
const acceptable = () => above(batch.items).filter((item) => isOpen(item) && !item.broken && item.choice === item.proposal);
const unseen = () => acceptable().sort(byConfidence).slice(0, BORDERLINE).filter((item) => !item.seen);

function groupByThreshold(items) {
  const sorted = items.toSorted(byConfidence), limit = percent(threshold());
  const accepted = above(sorted), rest = sorted.filter((item) => !accepted.includes(item));
  const groups = [{ title: `${limit} or more, least certain first`, items: accepted }, { title: `Less than ${limit}`, items: rest }];
  return groups.filter((group) => group.items.length);
}

/** Note which images have been on screen, in the view of one class. */
function watchSeen() {
  observer?.disconnect();
  for (const timer of looks.values()) clearTimeout(timer);
  looks.clear();
  if (batch.kind !== "class") return;
  observer = new IntersectionObserver(lookedAt, { root: byId("label-view"), threshold: 0.6 });
  for (const tile of batchTiles()) observer.observe(tile);
}

function lookedAt(entries) {
  for (const { target, isIntersecting } of entries) {
    clearTimeout(looks.get(target));
    if (isIntersecting) looks.set(target, setTimeout(() => noteSeen(target), LOOK));
    else looks.delete(target);
  }
}

function noteSeen(tile) {
  const item = batch.items[batchGrid.source.indexOf(tile)];
  if (!item || item.seen) return;
  if (!tile.querySelector("img").complete) return void looks.set(tile, setTimeout(() => noteSeen(tile), LOOK));
  item.seen = true;
  showBulk();
}

/** Show how many images the button accepts, or how many to look at first. */
function showBulk() {
  if (batch.kind !== "class") return;
  const left = unseen().length, count = acceptable().length, button = byId("bulk-accept");
  setText(byId("threshold-value"), percent(threshold()));
  setText(button, left ? `Look at ${plural(left, "borderline image")} first` : count ? `Accept ${thousands(count)} of ${plural(batch.items.length, "image")} shown` : `No open image has ${percent(threshold())}`);
  button.disabled = !count;
}

/** Accept the images above the threshold, or show those that nobody looked at yet. */
function acceptBulk() {
  const left = unseen(), items = acceptable();
  if (left.length) return lookAt(left[0]);
  if (!items.length) return say("No open image has this confidence.");
  saveLabels(items.map((item) => ({ item, label: item.choice })), `${plural(items.length, "image")} labeled “${batch.query.class}”.`);
}

function lookAt(item) {
  const index = batch.items.indexOf(item), [tile] = item.tiles;
  setCurrent(batchGrid, index, { focus: focusIsFree(), reveal: false });
  tile.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  say("Look at these images first; the least certain ones are shown first.");
}

/** Show the images proposed as a class. */
function showClass(name) {
  showQuery("class", { class: name }, `Proposed as “${name}”`);
}

byId("threshold").addEventListener("input", () => { drawBatch(); byId("label-view").scrollTop = 0; });
byId("threshold").addEventListener("change", () => { if (lastInput === "pointer") focusImages(); });
byId("bulk-accept").addEventListener("click", acceptBulk);
