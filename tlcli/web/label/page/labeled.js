"use strict";
/* The view "Labeled": a list of all labels, newest first, of which only the rows on screen exist as elements.
   Labels that are changed or removed here keep their places until the view is opened again. */

const PAGE = 100, KEPT_PAGES = 15, SETTLE = 80; // images, pages, milliseconds
const GAP = 14; // pixels between tiles
const TEXT_HEIGHT = 2.1 * parseFloat(getComputedStyle(document.documentElement).fontSize); // pixels of the text below an image
const listed = { filter: "", total: 0, pages: new Map(), loading: new Set(), tiles: new Map(), columns: 1, width: 0, stale: true, fresh: false, ticket: 0, timer: 0 };

const labeledPane = byId("labeled-pane");
const listedAt = (index) => listed.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
const rowHeight = () => listed.width + TEXT_HEIGHT + GAP;
const labeledGrid = makeGrid(byId("labeled-grid"), labeledPane, {
  count: () => listed.total,
  at: listedAt,
  tileAt: (index) => listed.tiles.get(index),
  indexOf: (tile) => Number(tile.dataset.index),
  show: showRow,
  step: stepListed,
  within: listedWithin,
});
labeledGrid.onChange = () => showActions();

/** Open the view, with the labels of one class if a filter is given. */
function openLabeled(filter = listed.filter) {
  if (filter !== listed.filter) listed.stale = true;
  listed.filter = filter;
  fillFilter();
  if (listed.stale) reloadListed();
  else layOut();
}

/** The labels changed elsewhere: load them again, now or when the view is opened. */
function labeledChanged() {
  listed.stale = true;
  if (document.body.dataset.view === "labeled") reloadListed();
}

/** Load the list again; what is shown stays until the first page is here. */
function reloadListed() {
  Object.assign(listed, { stale: false, fresh: true });
  listed.ticket += 1;
  listed.loading.clear();
  loadPage(Math.floor(firstVisible() / PAGE));
}

function forgetAll() {
  listed.fresh = false;
  clearTiles();
  listed.pages.clear();
  clearSelection(labeledGrid);
}

function clearTiles() {
  for (const [index, tile] of listed.tiles) dropTile(index, tile);
}

async function loadPage(page) {
  if ((listed.pages.has(page) && !listed.fresh) || listed.loading.has(page)) return;
  listed.loading.add(page);
  const ticket = listed.ticket, offset = page * PAGE - (listed.fresh ? 0 : removedBefore(page));
  const answer = await get("/api/labels", { offset, limit: PAGE, ...(listed.filter && { class: listed.filter }) }).catch((error) => say(error.message));
  if (ticket !== listed.ticket) return;
  listed.loading.delete(page);
  if (!answer) return;
  const held = byId("labeled-grid").contains(document.activeElement);
  if (listed.fresh) forgetAll();
  listed.total = answer.total + removedBefore(Infinity);
  listed.pages.set(page, answer.images.map((image) => makeItem(image, "saved")));
  forgetPages(page);
  layOut();
  if (held && document.activeElement === document.body) setCurrent(labeledGrid, labeledGrid.current, { reveal: false });
  showActions();
}

/** Count the labels removed here from pages before one: the server's list is shorter by them. */
function removedBefore(page) {
  let count = 0;
  for (const [number, items] of listed.pages) if (number < page) count += items.filter((item) => item.status === "removed").length;
  return count;
}

/** Forget the pages farthest from one, to bound memory. */
function forgetPages(page) {
  const far = [...listed.pages.keys()].sort((a, b) => Math.abs(b - page) - Math.abs(a - page));
  for (const number of far) {
    if (listed.pages.size <= KEPT_PAGES) return;
    if (listed.pages.get(number).every((item) => item.status === "saved")) listed.pages.delete(number);
  }
}

const firstVisible = () => Math.floor(labeledPane.scrollTop / rowHeight()) * listed.columns || 0;

/** Compute the columns from the width, keep the first visible image in place, and draw. */
function layOut() {
  const box = byId("labeled-grid"), room = box.clientWidth;
  if (!room) return;
  const size = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--tile"));
  const columns = Math.max(1, Math.floor((room + GAP) / (size + GAP))), width = (room - GAP * (columns - 1)) / columns;
  if (columns !== listed.columns || width !== listed.width) {
    const first = firstVisible();
    clearTiles();
    Object.assign(listed, { columns, width });
    labeledPane.scrollTop = Math.floor(first / columns) * rowHeight();
  }
  box.style.height = `${Math.ceil(listed.total / columns) * rowHeight()}px`;
  setText(byId("labeled-total"), listed.total ? plural(listed.total, "label") : "No labels yet.");
  drawRows();
}

/** Create the tiles of the rows on screen and a screen around them, and remove all others. */
function drawRows() {
  const height = labeledPane.clientHeight, first = Math.max(0, Math.floor((labeledPane.scrollTop - height / 2) / rowHeight())) * listed.columns;
  const end = Math.min(listed.total, Math.ceil((labeledPane.scrollTop + 1.5 * height) / rowHeight()) * listed.columns);
  const focused = document.activeElement?.dataset?.index;
  for (const [index, tile] of listed.tiles) if (index < first || index >= end || (tile.classList.contains("placeholder") && listedAt(index))) dropTile(index, tile);
  for (let index = first; index < end; index++) if (!listed.tiles.has(index)) addTile(index);
  if (focused !== undefined && document.activeElement === document.body) listed.tiles.get(Number(focused))?.focus({ preventScroll: true });
  clearTimeout(listed.timer);
  listed.timer = setTimeout(() => loadMissing(first, end), SETTLE);
}

function loadMissing(first, end) {
  for (let page = Math.floor(first / PAGE); page * PAGE < end; page++) loadPage(page);
}

function addTile(index) {
  const item = listedAt(index);
  const tile = item ? makeTile(item, "label") : element("div", { class: "tile placeholder", role: "option", "aria-selected": "false", "aria-label": "Loading", tabindex: "-1" }, element("span", { class: "frame" }));
  tile.dataset.index = index;
  tile.setAttribute("aria-setsize", listed.total);
  tile.setAttribute("aria-posinset", index + 1);
  const column = index % listed.columns, row = Math.floor(index / listed.columns);
  Object.assign(tile.style, { width: `${listed.width}px`, left: `${column * (listed.width + GAP)}px`, top: `${row * rowHeight()}px` });
  listed.tiles.set(index, tile);
  byId("labeled-grid").append(tile);
  paintTile(labeledGrid, index);
}

function dropTile(index, tile) {
  listedAt(index)?.tiles.delete(tile);
  listed.tiles.delete(index);
  tile.remove();
}

function showRow(index) {
  const top = Math.floor(index / listed.columns) * rowHeight(), height = labeledPane.clientHeight;
  if (top < labeledPane.scrollTop) labeledPane.scrollTop = top;
  else if (top + rowHeight() > labeledPane.scrollTop + height) labeledPane.scrollTop = top + rowHeight() - height;
  drawRows();
}

function stepListed(index, key) {
  const screen = Math.max(1, Math.floor(labeledPane.clientHeight / rowHeight())) * listed.columns;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -listed.columns, ArrowDown: listed.columns, PageUp: -screen, PageDown: screen, Home: -Infinity, End: Infinity };
  const next = index + steps[key];
  return (key === "ArrowUp" && next < 0) || (key === "ArrowDown" && next >= listed.total) ? index : next;
}

function listedWithin(box) {
  const origin = byId("labeled-grid").getBoundingClientRect(), found = [];
  const rows = [box.top, box.bottom].map((y) => Math.floor((y - origin.top) / rowHeight()));
  for (let index = Math.max(0, rows[0]) * listed.columns; index < Math.min(listed.total, (rows[1] + 1) * listed.columns); index++) {
    const left = origin.left + (index % listed.columns) * (listed.width + GAP);
    if (left < box.right && left + listed.width > box.left) found.push(index);
  }
  return found;
}

/** Offer the classes as filters; the list is only rebuilt when they changed. */
function fillFilter() {
  const select = byId("filter"), names = classNames();
  if (!names.includes(listed.filter)) listed.filter = "";
  const shown = [...select.options].slice(1).map((option) => option.value);
  if (!select.options.length || names.some((name, index) => name !== shown[index]) || shown.length !== names.length)
    select.replaceChildren(element("option", { value: "", text: "All classes" }), ...names.map((name) => element("option", { value: name, text: name })));
  select.value = listed.filter;
}

byId("filter").addEventListener("change", () => { labeledPane.scrollTop = 0; labeledGrid.current = 0; openLabeled(byId("filter").value); });
let frame = 0;
labeledPane.addEventListener("scroll", () => { frame ||= requestAnimationFrame(() => { frame = 0; drawRows(); }); }, { passive: true });
new ResizeObserver(() => layOut()).observe(labeledPane);
onState(fillFilter);
