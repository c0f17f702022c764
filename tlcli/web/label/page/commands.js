"use strict";
/* What the buttons and keys do to the images of the view that is shown. */

const activeGrid = () => (document.body.dataset.view === "labeled" ? labeledGrid : batchGrid);
/** Return the items that a command concerns; in the full image, only that one. */
const concerned = () => (viewer.open ? [activeGrid().source.at(activeGrid().current)].filter(Boolean) : targets(activeGrid()));
/** Put the focus on the current image, unless a dialog is open. */
function focusImages() {
  const grid = activeGrid();
  if (!openedDialog() && grid.source.count()) setCurrent(grid, grid.current, { reveal: false });
}

const quoted = (label) => (label === null ? "none of the classes" : `“${label}”`);

function assign(label) {
  const grid = activeGrid(), items = concerned();
  if (!items.length) return say("Select an image first.");
  saveLabels(items.map((item) => ({ item, label })), `${plural(items.length, "image")} labeled ${quoted(label)}.`);
  moveOn(grid);
}

/** After a command: clear the selection and go to the next image that is open. */
function moveOn(grid) {
  clearSelection(grid);
  if (grid === batchGrid) advance(grid);
  else if (viewer.open) setCurrent(grid, grid.current + 1, { focus: false, reveal: true });
  refreshViewer();
}

/** Return the open items that Enter concerns, and those of them whose choice it saves: nobody accepts an image unseen. */
function offered() {
  if (activeGrid() !== batchGrid) return [];
  return (batchGrid.selected.size || viewer.open ? concerned() : batch.kind === "mix" ? batch.items : []).filter(isOpen);
}
const accepted = () => offered().filter((item) => item.choice !== undefined && !item.broken);

const GLANCE = 500; // milliseconds

function accept() {
  if (activeGrid() !== batchGrid) return;
  if (performance.now() - batch.shownAt < GLANCE) return say("These images are new: press Enter again to accept."); // or Enter after the last class would accept them unseen
  const items = accepted(), broken = offered().filter((item) => item.broken);
  if (!items.length && !batchGrid.selected.size && !viewer.open) {
    if (batch.kind === "class") return acceptBulk();
    if (batch.kind === "like") return say("Select images first; A selects all.");
  }
  if (!items.length && !broken.length) return say("No proposals to accept: assign classes first.");
  const text = `${plural(items.length, "label")} ${reviewing() ? "kept" : "accepted"}${broken.length ? `, ${plural(broken.length, "unreadable image")} skipped` : ""}.`;
  saveLabels([...items.map((item) => ({ item, label: item.choice })), ...broken.map((item) => ({ item, skip: true }))], text);
  moveOn(batchGrid);
}

/** In review mode: replace labels by the network's proposals. */
function take() {
  const items = concerned().filter((item) => item.proposal != null);
  if (!reviewing() || !items.length) return;
  saveLabels(items.map((item) => ({ item, label: item.proposal })), `${plural(items.length, "proposal")} taken.`);
  moveOn(activeGrid());
}

function skip() {
  if (activeGrid() !== batchGrid) return;
  const items = concerned().filter(isOpen);
  if (!items.length) return;
  saveLabels(items.map((item) => ({ item, skip: true })), `${plural(items.length, "image")} skipped.`);
  moveOn(batchGrid);
}

/** In the list of labels: remove labels, so that the images are offered again. */
function remove() {
  if (activeGrid() !== labeledGrid) return;
  const items = concerned().filter((item) => item.status !== "removed");
  saveLabels(items.map((item) => ({ item, remove: true })), `${plural(items.length, "label")} removed.`);
  moveOn(labeledGrid);
}

function more() {
  const [item] = concerned();
  if (!item) return;
  viewer.close();
  showQuery("like", { like: item.id }, `Similar to ${item.path.split("/").at(-1)}`);
}

function selectAll() {
  const grid = activeGrid();
  if (grid === batchGrid) setSelection(grid, batch.items.flatMap((item, index) => (isOpen(item) ? [index] : [])));
  else setSelection(grid, [...Array(grid.source.count()).keys()].filter((index) => grid.source.at(index)));
  const part = grid === labeledGrid && grid.selected.size < grid.source.count() ? " (those that are loaded)" : "";
  say(`${plural(grid.selected.size, "image")} selected${part}.`);
}

function clear() {
  const grid = activeGrid();
  if (grid.selected.size) return clearSelection(grid);
  if (batch.kind !== "mix" && grid === batchGrid) leaveQuery();
}

/** Show a view: the images to label, the list of labels, or, on a narrow screen, the classes and the progress. */
function showView(view) {
  document.body.dataset.view = view;
  byId("label-view").hidden = view !== "label";
  byId("labeled-view").hidden = view !== "labeled";
  for (const button of document.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", button.dataset.show === view);
  if (view === "labeled") openLabeled();
  showActions();
}

/** Show on the buttons what they would do now. */
function showActions() {
  const list = document.body.dataset.view === "labeled", grid = activeGrid(), selected = grid.selected.size;
  const count = batch.kind === "class" && !selected ? acceptable().length : accepted().length, any = Boolean(grid.source.count());
  setText(byId("accept").firstChild, `${reviewing() ? "Keep" : "Accept"}${count ? ` ${thousands(count)}` : ""}`);
  byId("accept").hidden = list;
  byId("accept").disabled = !count;
  byId("take").hidden = list || !reviewing();
  byId("skip").hidden = list;
  byId("remove").hidden = !list;
  for (const id of ["choose", "none", "skip", "remove", "more", "take", "all"]) byId(id).disabled = !any;
  setText(byId("choose").firstChild, selected ? `Class for ${thousands(selected)} …` : "Class …");
}

const COMMANDS = { accept, take, choose: () => openChooser(), none: () => assign(null), skip, remove, undo, more, all: selectAll, group: selectGroup, clear };
for (const button of document.querySelectorAll("[data-command]")) button.addEventListener("click", () => COMMANDS[button.dataset.command]());
for (const button of document.querySelectorAll("[data-show]")) button.addEventListener("click", () => showView(button.dataset.show));
onState(showActions);
