"use strict";
/* The view "Label": the images to label now, grouped by proposal, and what the commands do to them.
   A batch is the server's choice, the images proposed as one class (bulk.js), or those similar to one image. */

const SIZES = { mix: 24, like: 48, class: 120 };
const MOST = 120; // images of a batch to which undone ones were added
const GROUP = 2; // images with one proposal that get a heading of their own
const batch = { kind: "mix", query: {}, items: [], ticket: 0, loading: false, wanted: true, complete: false, home: null, shownAt: 0 };

const batchTiles = () => byId("grid").querySelectorAll(".tile");
const batchGrid = makeGrid(byId("grid"), byId("label-view"), {
  count: () => batch.items.length,
  at: (index) => batch.items[index],
  tileAt: (index) => document.getElementById(`image-${batch.items[index]?.id}`),
  indexOf: (tile) => batch.items.findIndex((item) => String(item.id) === tile.dataset.id),
  show: (index) => document.getElementById(`image-${batch.items[index]?.id}`)?.scrollIntoView({ block: "nearest" }),
  step: (index, key) => stepAmong([...batchTiles()], index, key),
  within: (box) => [...batchTiles()].flatMap((tile, index) => (touches(tile.getBoundingClientRect(), box) ? [index] : [])),
});
batchGrid.onChange = () => showActions();

const touches = (one, other) => one.left < other.right && one.right > other.left && one.top < other.bottom && one.bottom > other.top;

/** Return the index to which a key leads: up and down to the nearest tile of the next row. */
function stepAmong(tiles, index, key) {
  if (key === "Home") return 0;
  if (key === "End") return tiles.length - 1;
  if (key === "ArrowLeft") return index - 1;
  if (key === "ArrowRight") return index + 1;
  const boxes = tiles.map((tile) => tile.getBoundingClientRect()), own = boxes[index];
  const beyond = boxes.map((box, at) => ({ box, at })).filter(({ box }) => (key === "ArrowUp" ? box.top < own.top - 4 : box.top > own.top + 4));
  if (!beyond.length) return index;
  const row = key === "ArrowUp" ? Math.max(...beyond.map(({ box }) => box.top)) : Math.min(...beyond.map(({ box }) => box.top));
  const nearest = beyond.filter(({ box }) => Math.abs(box.top - row) < 4).sort((a, b) => Math.abs(a.box.left - own.left) - Math.abs(b.box.left - own.left));
  return nearest[0].at;
}

/** Load the next batch of the kind shown. The present one stays until the new one is here; only the latest call counts. */
async function loadBatch() {
  const ticket = ++batch.ticket;
  byId("grid").setAttribute("aria-busy", "true");
  batch.loading = true;
  const answer = await get("/api/batch", { size: SIZES[batch.kind], tab, ...batch.query }).catch(batchFailed);
  if (ticket !== batch.ticket) return;
  batch.loading = false;
  byId("grid").removeAttribute("aria-busy");
  if (answer) takeBatch(answer);
}

/** After a failed attempt to load a batch, the clock of main.js makes the next one. */
function batchFailed(error) {
  if (!(error instanceof RequestError)) throw error;
  say(error.message);
  if (!error.temporary && batch.kind !== "mix") return leaveQuery(); // such as a class that no longer exists
  batch.wanted = true;
}

function takeBatch({ images }) {
  batch.wanted = false;
  if (!images.length && batch.kind !== "mix") return nothingThere();
  const home = new Map((batch.home ?? []).map((item) => [item.id, item]));
  showItems(images.map((image) => (home.has(image.id) ? renew(home.get(image.id), image) : makeItem(image))));
}

/** Update an item that was shown before with a newer proposal. */
function renew(item, image) {
  Object.assign(item, image);
  if (isOpen(item)) item.choice = makeItem(image).choice;
  return item;
}

function nothingThere() {
  const text = batch.kind === "class" ? `No more images are proposed as “${batch.query.class}”.` : "No similar images are left.";
  leaveQuery();
  say(text);
}

/** Show items as a new batch. The focus moves to the first one, unless it is in a text field or elsewhere. */
function showItems(items) {
  for (const item of batch.items) item.tiles.clear();
  batch.items = items;
  batch.complete = false;
  batch.shownAt = performance.now();
  drawBatch();
  byId("label-view").scrollTop = 0;
  setCurrent(batchGrid, 0, { focus: focusIsFree(), reveal: false });
  refreshViewer();
}

const focusIsFree = () => document.activeElement === document.body || document.activeElement === null || byId("grid").contains(document.activeElement);

/** Draw the groups of the batch; tiles that exist are moved, not created again. */
function drawBatch() {
  const groups = groupItems(batch.items), held = byId("grid").contains(document.activeElement);
  batch.items = groups.flatMap((group) => group.items);
  clearSelection(batchGrid);
  byId("grid").replaceChildren(...groups.map(drawGroup));
  spanGroups();
  batch.items.forEach((_, index) => paintTile(batchGrid, index));
  if (held) setCurrent(batchGrid, batchGrid.current, { reveal: false });
  watchSeen();
  showEmpty();
  batchChanged();
}

/** Group items by what is proposed: small groups are joined at the end. */
function groupItems(items) {
  if (batch.kind === "class") return groupByThreshold(items);
  const back = items.filter((item) => item.back), rest = items.filter((item) => !item.back);
  const groups = back.length ? [{ title: "Undone", items: back }] : [];
  if (batch.kind === "like") return [...groups, { title: "Most similar images without a label", items: rest }];
  const byTitle = groupBy(rest, proposed);
  for (const [title, own] of byTitle) if (own.length >= GROUP || byTitle.size === 1) groups.push({ title, items: own });
  const mixed = rest.filter((item) => !groups.some((group) => group.items.includes(item)));
  if (mixed.length) groups.push({ title: groups.length ? "Other proposals" : "Various proposals", items: mixed });
  return groups;
}

function groupBy(items, key) {
  const groups = new Map();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}

function proposed(item) {
  if (item.label != null && item.proposal && item.proposal !== item.label) return `“${item.label}” → “${item.proposal}”`;
  return item.label ?? item.proposal ?? "No proposals yet: assign classes";
}

function drawGroup(group, number) {
  const title = element("div", { class: "heading", id: `group-${number}`, title: group.title, "aria-hidden": "true" }, element("b", { text: group.title }), ` ${thousands(group.items.length)}`);
  title.addEventListener("click", () => selectItems(group.items));
  const tiles = group.items.map((item) => [...item.tiles][0] ?? makeTile(item, "image"));
  return element("div", { role: "group", class: "group", "aria-labelledby": title.id, "data-count": tiles.length }, title, ...tiles);
}

/** Put small groups side by side: each takes as many columns as it has images, at most all. */
function spanGroups() {
  const groups = [...byId("grid").children];
  for (const group of groups) group.style.gridColumn = "";
  const columns = getComputedStyle(byId("grid")).gridTemplateColumns.split(" ").length;
  for (const group of groups) if (group.dataset.count < columns) group.style.gridColumn = `span ${group.dataset.count}`;
}

function selectItems(items) {
  const indexes = items.map((item) => batch.items.indexOf(item));
  const all = indexes.every((index) => batchGrid.selected.has(index));
  say(all ? "Not selected." : `${plural(items.length, "image")} selected.`);
  setSelection(batchGrid, all ? [...batchGrid.selected].filter((index) => !indexes.includes(index)) : [...batchGrid.selected, ...indexes]);
}

/** Select the open images with the current image's group, or all open ones. */
function selectGroup() {
  const own = document.getElementById(`image-${batch.items[batchGrid.current]?.id}`)?.closest(".group");
  if (own) selectItems([...own.querySelectorAll(".tile")].map((tile) => batch.items[batchGrid.source.indexOf(tile)]).filter(isOpen));
}

/** After labels changed: move on when everything is done and saved. */
function batchChanged() {
  showActions();
  showBulk();
  const busy = batch.items.some((item) => item.status === "open" || item.status === "saving");
  if (busy || !batch.items.length || batch.complete) return;
  batch.complete = true;
  loadBatch();
}

/** Make the next open image the current one. */
function advance(grid) {
  const items = grid === batchGrid ? batch.items : [];
  const after = items.findIndex((item, index) => index > grid.current && isOpen(item));
  const next = after >= 0 ? after : items.findIndex(isOpen);
  if (next >= 0) setCurrent(grid, next, { focus: focusIsFree(), reveal: true });
}

/** Show undone images again, before the others of the batch. */
function bringBack(items) {
  const missing = items.filter((item) => !batch.items.includes(item));
  for (const item of missing) { item.back = true; item.tiles.clear(); }
  batch.complete = false;
  if (!missing.length) {
    if (items.length) setCurrent(batchGrid, batch.items.indexOf(items[0]), { focus: focusIsFree(), reveal: true });
    return batchChanged();
  }
  const ids = new Set(missing.map((item) => item.id));
  batch.items = [...missing, ...batch.items.filter((item) => !ids.has(item.id))].slice(0, MOST);
  batchGrid.current = 0;
  drawBatch();
  byId("label-view").scrollTop = 0;
}

/** Show the images proposed as one class, or those similar to one image. */
function showQuery(kind, query, title) {
  if (!batch.home) batch.home = batch.items;
  Object.assign(batch, { kind, query });
  setText(byId("context-title"), title);
  byId("context").hidden = false;
  byId("bulk").hidden = kind !== "class";
  byId("context-image").hidden = kind !== "like";
  if (kind === "like") byId("context-image").src = imageAddress(query.like, 256);
  showView("label");
  loadBatch();
}

/** Return to the server's choice of images: to those left of the batch that was shown before. */
function leaveQuery() {
  const left = (batch.home ?? []).filter(isOpen);
  Object.assign(batch, { kind: "mix", query: {}, home: null });
  byId("context").hidden = true;
  if (left.length) showItems(left);
  else loadBatch();
}

new ResizeObserver(spanGroups).observe(byId("label-view"));
byId("back").addEventListener("click", leaveQuery);
