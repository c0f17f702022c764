"use strict";
/* Choosing images of a grid: the current image, the selection, and how pointer and keyboard change them.
   A grid's source gives `count()`, `at(index)` (an item, or undefined while it is loaded), `tileAt(index)`,
   `indexOf(tile)`, `step(index, key)`, `show(index)` and `within(box)`, the indexes of the tiles in a box. */

const DRAG_START = 6, DOUBLE = 350, LONG_PRESS = 500; // pixels, milliseconds, milliseconds
const EDGE = 40; // pixels at the border of a pane in which dragging scrolls it

function makeGrid(list, pane, source) {
  const grid = { list, pane, source, current: 0, anchor: 0, selected: new Set(), onChange() {} };
  listenToPointer(grid);
  list.addEventListener("focusin", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) setCurrent(grid, source.indexOf(tile), { focus: false });
  });
  return grid;
}

/** Return the items that a command concerns: the selected ones, otherwise the current one. */
function targets(grid) {
  const indexes = grid.selected.size ? [...grid.selected].sort((a, b) => a - b) : [grid.current];
  return indexes.map((index) => grid.source.at(index)).filter(Boolean);
}

/** Make an image the current one; only it can be reached with Tab. */
function setCurrent(grid, index, { focus = true, reveal = focus } = {}) {
  const before = grid.source.tileAt(grid.current);
  grid.current = Math.max(0, Math.min(index, grid.source.count() - 1));
  if (reveal) grid.source.show(grid.current);
  if (before) markTile(grid, before, false);
  const tile = grid.source.tileAt(grid.current);
  if (!tile) return;
  markTile(grid, tile, true);
  if (focus) tile.focus({ preventScroll: true });
}

function markTile(grid, tile, current) {
  tile.tabIndex = current ? 0 : -1;
  tile.classList.toggle("current", current);
}

/** Show on a tile whether it is selected; called also for tiles that a virtual grid has just created. */
function paintTile(grid, index) {
  const tile = grid.source.tileAt(index);
  if (!tile) return;
  tile.setAttribute("aria-selected", grid.selected.has(index));
  markTile(grid, tile, index === grid.current);
}

function setSelection(grid, indexes) {
  const before = grid.selected;
  grid.selected = new Set(indexes);
  for (const index of new Set([...before, ...grid.selected])) if (before.has(index) !== grid.selected.has(index)) paintTile(grid, index);
  grid.onChange();
}

const clearSelection = (grid) => setSelection(grid, []);

function toggle(grid, index) {
  const selected = new Set(grid.selected);
  if (!selected.delete(index)) selected.add(index);
  grid.anchor = index;
  setSelection(grid, selected);
}

/** Select all images between the anchor and an index, besides those given. */
function selectRange(grid, index, others = []) {
  const [first, last] = [Math.min(grid.anchor, index), Math.max(grid.anchor, index)];
  setSelection(grid, [...others, ...Array.from({ length: last - first + 1 }, (_, step) => first + step)]);
}

/** Move the current image with an arrow key, Home or End; with Shift, the selection follows. */
function moveCurrent(grid, key, extend) {
  if (!grid.source.count()) return;
  const next = grid.source.step(grid.current, key);
  if (extend && !grid.selected.size) grid.anchor = grid.current;
  setCurrent(grid, next);
  if (extend) selectRange(grid, grid.current);
}

/* Pointer: a click or tap toggles, Shift extends, two in a row or a long press open the full image, a drag selects. */

function listenToPointer(grid) {
  const gesture = { drag: null, swallow: false, last: { index: -1, time: 0 }, timer: 0 };
  grid.pane.addEventListener("pointerdown", (event) => pressed(grid, gesture, event));
  grid.pane.addEventListener("pointermove", (event) => moved(grid, gesture, event));
  for (const kind of ["pointerup", "pointercancel"]) grid.pane.addEventListener(kind, () => released(grid, gesture));
  grid.pane.addEventListener("click", (event) => clicked(grid, gesture, event));
  grid.pane.addEventListener("contextmenu", (event) => { if (gesture.swallow) event.preventDefault(); });
  grid.pane.addEventListener("scroll", () => { clearTimeout(gesture.timer); hideHover(); }, { passive: true });
}

function pressed(grid, gesture, event) {
  gesture.swallow = false;
  clearTimeout(gesture.timer);
  const tile = event.target.closest(".tile");
  if (event.target.closest("button, input, select, form, a") || event.button) return;
  if (event.pointerType === "touch") {
    if (tile) gesture.timer = setTimeout(() => { gesture.swallow = true; openViewer(grid, grid.source.indexOf(tile)); }, LONG_PRESS);
    return;
  }
  if (event.offsetX > grid.pane.clientWidth && event.target === grid.pane) return; // the scroll bar
  const keep = event.shiftKey || event.ctrlKey || event.metaKey ? [...grid.selected] : [];
  gesture.drag = { x: event.clientX, y: event.clientY + grid.pane.scrollTop, keep, started: false, pointer: event.pointerId };
}

function moved(grid, gesture, event) {
  const drag = gesture.drag;
  if (event.pointerType === "touch" && Math.hypot(event.movementX, event.movementY) > 3) clearTimeout(gesture.timer);
  if (!drag) return;
  const from = drag.y - grid.pane.scrollTop;
  if (!drag.started && Math.hypot(event.clientX - drag.x, event.clientY - from) < DRAG_START) return;
  if (!drag.started) grid.pane.setPointerCapture(drag.pointer);
  drag.started = true;
  scrollAtEdge(grid.pane, event.clientY);
  drawBand(grid, drag, event);
}

function scrollAtEdge(pane, y) {
  const box = pane.getBoundingClientRect();
  if (y < box.top + EDGE) pane.scrollTop -= EDGE / 2;
  if (y > box.bottom - EDGE) pane.scrollTop += EDGE / 2;
}

/** Draw the frame of a drag and select the tiles that it touches. */
function drawBand(grid, drag, event) {
  const from = drag.y - grid.pane.scrollTop, pane = grid.pane.getBoundingClientRect();
  const box = { left: Math.min(drag.x, event.clientX), right: Math.max(drag.x, event.clientX), top: Math.min(from, event.clientY), bottom: Math.max(from, event.clientY) };
  const band = byId("band"), top = Math.max(box.top, pane.top), bottom = Math.min(box.bottom, pane.bottom);
  band.hidden = false;
  Object.assign(band.style, { left: `${box.left}px`, top: `${top}px`, width: `${box.right - box.left}px`, height: `${bottom - top}px` });
  setSelection(grid, [...drag.keep, ...grid.source.within(box)]);
}

function released(grid, gesture) {
  clearTimeout(gesture.timer);
  if (gesture.drag?.started) {
    gesture.swallow = true;
    setTimeout(() => (gesture.swallow = false)); // no click follows when the button is released elsewhere
    if (grid.selected.size) setCurrent(grid, Math.min(...grid.selected), { focus: true, reveal: false });
  }
  gesture.drag = null;
  byId("band").hidden = true;
}

function clicked(grid, gesture, event) {
  if (gesture.swallow) { gesture.swallow = false; return; }
  const tile = event.target.closest(".tile");
  if (!tile) return;
  const index = grid.source.indexOf(tile), again = gesture.last.index === index && event.timeStamp - gesture.last.time < DOUBLE;
  gesture.last = { index, time: again ? 0 : event.timeStamp };
  setCurrent(grid, index, { reveal: false });
  if (event.shiftKey) return selectRange(grid, index, grid.selected);
  toggle(grid, index);
  if (again) openViewer(grid, index);
}
