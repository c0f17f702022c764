"use strict";
/* The full image in a dialog; arrow keys and class keys work in it as in the grid. */

const FULL = 2048;
const viewer = byId("viewer");

function openViewer(grid, index) {
  if (!grid.source.at(index)) return;
  clearSelection(grid);
  setCurrent(grid, index, { focus: false, reveal: true });
  openDialog(viewer);
  viewer.focus(); // not its first button, which Enter and Space would press
  showInViewer(grid);
}

/** Show the grid's current image: first its thumbnail, which is there already, then the full image. */
async function showInViewer(grid) {
  const item = grid.source.at(grid.current);
  if (!item) return viewer.close();
  const image = byId("viewer-image"), full = new Image(), reason = REASONS[item.reason];
  setText(byId("viewer-caption"), `${describe(item)}${reason ? ` (${reason})` : ""}`);
  byId("viewer-previous").disabled = grid.current === 0;
  byId("viewer-next").disabled = grid.current === grid.source.count() - 1;
  if (image.dataset.id === String(item.id)) return;
  image.dataset.id = item.id;
  image.src = imageAddress(item.id, thumbnailSide());
  full.src = imageAddress(item.id, FULL);
  await full.decode().catch(() => {});
  if (image.dataset.id === String(item.id) && full.naturalWidth) image.src = full.src;
}

/** Show the current image again after a key changed it or moved on. */
function refreshViewer() {
  if (viewer.open) showInViewer(activeGrid());
}

function moveInViewer(step) {
  const grid = activeGrid();
  setCurrent(grid, grid.current + step, { focus: false, reveal: true });
  showInViewer(grid);
}

viewer.addEventListener("close", () => {
  byId("viewer-image").removeAttribute("src");
  delete byId("viewer-image").dataset.id;
  const grid = activeGrid();
  if (grid.source.count()) setCurrent(grid, grid.current);
});
byId("viewer-previous").addEventListener("click", () => moveInViewer(-1));
byId("viewer-next").addEventListener("click", () => moveInViewer(1));
byId("viewer-choose").addEventListener("click", () => openChooser());
byId("viewer-close").addEventListener("click", () => viewer.close());
