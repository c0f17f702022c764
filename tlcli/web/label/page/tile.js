"use strict";
/* One image of a grid: what is known of it (an item), and how it looks (its tiles, at most one in each grid). */

const STATUS = { open: "", saving: "saving", saved: "saved", skipped: "skipped", removed: "label removed" };
const REASONS = { uncertain: "the network is uncertain", random: "chosen at random", cluster: "typical of similar images", similar: "similar to your image", class: "proposed as this class", suspect: "the label may be wrong", review: "to review" };
const CHECKMARK = "✓";

/** Return an item from an image as the server sends it. Its choice is a class, null for none of the classes, or undefined. */
function makeItem(image, status = "open") {
  const choice = image.label ?? (status === "saved" ? null : (image.proposal ?? undefined));
  return { ...image, choice, status, tiles: new Set() };
}

const isOpen = (item) => item.status === "open";
const choiceText = (choice) => (choice === null ? "none of the classes" : (choice ?? "no proposal yet"));
const showsProposal = (item) => isOpen(item) && item.label == null && item.choice === item.proposal && item.confidence != null;

/** Return the side in pixels of the thumbnails to load for this screen. */
function thumbnailSide() {
  const side = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--tile")) || 176;
  return side * devicePixelRatio > 256 ? 512 : 256;
}

/** Create a tile of an item for the grid with this name. */
function makeTile(item, grid) {
  const image = element("img", { alt: "", decoding: "async", draggable: "false" });
  const tile = element("div", { role: "option", id: `${grid}-${item.id}`, class: "tile", tabindex: "-1", "aria-selected": "false", "data-id": item.id },
    element("span", { class: "frame" }, image, element("span", { class: "mark", "aria-hidden": "true" })),
    element("span", { class: "name" }), element("span", { class: "second" }));
  if (item.similar > 0) tile.firstChild.append(element("span", { class: "badge", text: `+${thousands(item.similar)}`, title: `${plural(item.similar, "near copy", "near copies")} of this image ${item.similar === 1 ? "gets" : "get"} the same label proposed` }));
  image.addEventListener("error", () => { item.broken = true; refreshTile(item); });
  image.src = imageAddress(item.id, thumbnailSide());
  item.tiles.add(tile);
  fillTile(tile, item);
  return tile;
}

/** Load the images of items again that could not be loaded while the server did not answer. */
function reloadBroken(items) {
  for (const item of items.filter((one) => one.broken)) {
    item.broken = false;
    for (const tile of item.tiles) tile.querySelector("img").src = imageAddress(item.id, thumbnailSide());
    refreshTile(item);
  }
}

function refreshTile(item) {
  for (const tile of item.tiles) fillTile(tile, item);
}

function fillTile(tile, item) {
  tile.dataset.status = item.status;
  tile.classList.toggle("broken", Boolean(item.broken));
  tile.setAttribute("aria-label", describe(item));
  const name = tile.querySelector(".name"), text = item.choice === null ? "None" : (item.choice ?? "");
  const parts = [element("span", { text, title: text })];
  if (typeof item.choice === "string") parts.unshift(dot(item.choice));
  if (showsProposal(item)) parts.push(element("small", { text: percent(item.confidence) }));
  name.replaceChildren(...parts);
  setText(tile.querySelector(".mark"), item.status === "saved" ? CHECKMARK : item.status === "skipped" ? "Skipped" : item.status === "removed" ? "Label removed" : "");
  fillSecond(tile.querySelector(".second"), item);
}

/** Show the network's proposal below a label that is reviewed. */
function fillSecond(second, item) {
  second.hidden = item.label == null || item.proposal === undefined;
  if (second.hidden) return;
  const agrees = item.proposal === item.label;
  setText(second, item.proposal === null ? "no proposal yet" : `${agrees ? "agrees" : `→ ${item.proposal}`}, ${percent(item.confidence)}`);
  second.title = `The network proposes: ${item.proposal ?? "nothing yet"}`;
  second.classList.toggle("differs", item.proposal !== null && !agrees);
}

/** Describe an item to screen readers. */
function describe(item) {
  const parts = [choiceText(item.choice)];
  if (showsProposal(item)) parts.push(`proposed with ${percent(item.confidence)}`);
  if (item.label != null && item.proposal && item.proposal !== item.label) parts.push(`network: ${item.proposal}, ${percent(item.confidence)}`);
  if (STATUS[item.status]) parts.push(STATUS[item.status]);
  if (item.broken) parts.push("cannot be shown");
  if (item.similar > 0) parts.push(plural(item.similar, "near copy", "near copies"));
  return `${parts.join(", ")}: ${item.path}`;
}

/* The full image beside the tile on which the pointer rests. */

const HOVER_DELAY = 650, HOVER_GAP = 12, HOVER_SIDE = 560; // milliseconds, pixels, pixels
let hoverTimer = 0, hoverEnabled = remembered("hover", "on") === "on";

function hideHover() {
  clearTimeout(hoverTimer);
  byId("hover").hidden = true;
}

function hoverSoon(event) {
  const tile = event.target.closest?.(".tile");
  hideHover();
  if (!tile || !hoverEnabled || event.pointerType !== "mouse" || event.buttons) return;
  hoverTimer = setTimeout(() => showHover(tile), HOVER_DELAY);
}

async function showHover(tile) {
  const timer = hoverTimer, image = byId("hover").firstChild;
  image.src = imageAddress(tile.dataset.id, 1024);
  await image.decode().catch(() => {});
  if (timer !== hoverTimer || !image.naturalWidth || !tile.isConnected) return;
  placeHover(tile.getBoundingClientRect(), image);
}

/** Place the full image on the side of the tile with more room, as large as it fits, without covering the tile. */
function placeHover(box, image) {
  const hover = byId("hover"), left = box.left, right = innerWidth - box.right;
  const room = Math.max(left, right) - 3 * HOVER_GAP, height = innerHeight - 4 * HOVER_GAP;
  if (room < 1.5 * box.width) return; // no larger than the tile
  const scale = Math.min(1, Math.min(room, HOVER_SIDE) / image.naturalWidth, Math.min(height, HOVER_SIDE) / image.naturalHeight);
  image.width = Math.round(image.naturalWidth * scale);
  image.height = Math.round(image.naturalHeight * scale);
  hover.hidden = false;
  const own = hover.getBoundingClientRect();
  hover.style.left = `${right >= left ? box.right + HOVER_GAP : box.left - HOVER_GAP - own.width}px`;
  hover.style.top = `${Math.max(HOVER_GAP, Math.min(innerHeight - own.height - HOVER_GAP, (box.top + box.bottom - own.height) / 2))}px`;
}

document.addEventListener("pointerover", hoverSoon);
for (const kind of ["pointerdown", "keydown", "wheel"]) document.addEventListener(kind, hideHover, { passive: true });
