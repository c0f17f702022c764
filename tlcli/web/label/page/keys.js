"use strict";
/* The keyboard: which key does what, and the dialog that lists it. Keys typed into text fields are left alone. */

const COMMAND_KEYS = { enter: "accept", t: "take", "/": "choose", x: "none", s: "skip", delete: "remove", u: "undo", m: "more", a: "all", g: "group", escape: "clear" };
const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"];
const HELP = [
  ["1 … 9, letters", "assign the class with this key to the selected images, or to the current one"],
  ["Enter", "accept the proposals of the selected images, or of all; then the next images are shown"],
  ["/", "find a class by typing; Enter there assigns it, with Shift it shows the images proposed as it"],
  ["X", "none of the classes"], ["S", "skip"], ["U", "undo, without limit"],
  ["T", "in a review: take the network's proposal"],
  ["Del", "in the list of labels: remove the label"],
  ["M", "more images like this one"],
  ["Space", "show the full image; arrow keys and class keys work there too"],
  ["Arrow keys, Home, End", "move; with Shift, select"],
  ["↑ ↓ in the list of classes", "move among the classes; Tab reaches “Edit” to rename or merge"],
  ["Ctrl Space", "select or deselect the current image"],
  ["A", "select all"], ["G", "select the current image's group"],
  ["Esc", "clear the selection, or return to all images"],
  ["?", "this help"],
];
let singleKeys = remembered("keys", "on") === "on";

const isTyping = (target) => target.matches?.("input:not([type=range], [type=checkbox]), select, textarea");
const isControl = (target) => Boolean(target.closest?.("button, a, summary, input, select"));

function keyPressed(event) {
  const dialog = openedDialog();
  if (event.key === "Escape" && !dialog && isTyping(event.target)) return focusImages();
  if (event.defaultPrevented || event.isComposing || event.altKey || isTyping(event.target) || (dialog && dialog !== viewer)) return;
  if (event.ctrlKey || event.metaKey) return withControl(event);
  if (moveKey(event) || event.repeat || (isControl(event.target) && ["Enter", " "].includes(event.key))) return;
  if (runKey(event)) event.preventDefault();
}

/** Handle the keys that move; return whether it was one. */
function moveKey(event) {
  if (!MOVES.includes(event.key) || event.target.matches?.("input")) return false;
  const grid = activeGrid();
  if (event.key.startsWith("Page") && grid === batchGrid) return false;
  if (document.body.dataset.view === "overview" || (event.target !== document.body && !viewer.open && !grid.pane.contains(event.target))) return true;
  event.preventDefault();
  moveCurrent(grid, event.key, event.shiftKey && !viewer.open);
  refreshViewer();
  return true;
}

function withControl(event) {
  const key = event.key.toLowerCase();
  if (key === "z" && !event.shiftKey) undo();
  else if (key === "a" && !viewer.open) selectAll();
  else if (key === " " && !viewer.open) toggle(activeGrid(), activeGrid().current);
  else return;
  event.preventDefault();
}

/** Run a command or assign a class; return whether the key means something. */
function runKey(event) {
  const key = event.key.toLowerCase(), named = key.length > 1;
  if (!named && key !== " " && !singleKeys) return false;
  if (key === "?") return openHelp(), true;
  if (key === " ") return viewer.open ? viewer.close() : openViewer(activeGrid(), activeGrid().current), true;
  if (key === "escape" && viewer.open) return false; // the dialog closes itself
  if (key in COMMAND_KEYS) return COMMANDS[COMMAND_KEYS[key]](), refreshViewer(), true;
  const name = classOfKey(key);
  if (name === undefined) return false;
  assign(name);
  return true;
}

function openHelp() {
  viewer.close();
  openDialog(byId("help"));
}

byId("help-keys").append(...HELP.flatMap(([key, text]) => [element("dt", {}, element("kbd", { text: key })), element("dd", { text })]));
byId("help-button").addEventListener("click", openHelp);
byId("help-close").addEventListener("click", () => byId("help").close());
byId("single-keys").checked = singleKeys;
byId("single-keys").addEventListener("change", (event) => { singleKeys = event.target.checked; remember("keys", singleKeys ? "on" : "off"); });
byId("hover-images").checked = hoverEnabled;
byId("hover-images").addEventListener("change", (event) => { hoverEnabled = event.target.checked; remember("hover", hoverEnabled ? "on" : "off"); });
document.addEventListener("keydown", keyPressed);
