"use strict";
/* The classes: the panel with their keys and counts, adding, renaming and merging, and the first ones. */

const FILTER_FROM = 13; // classes from which the panel can be filtered
const rows = new Map(); // elements of the panel by class
let edited = null; // the class whose dialog is open
let starting = false; // whether the first classes are being entered

/** Update the panel; rows of classes that stay are kept. */
function showClasses(state) {
  const list = byId("class-list"), most = Math.max(1, ...state.classes.map((one) => one.count));
  const present = new Set(state.classes.map((one) => one.name));
  for (const [name, row] of rows) if (!present.has(name)) { row.remove(); rows.delete(name); }
  state.classes.forEach((one, index) => {
    if (!rows.has(one.name)) rows.set(one.name, makeRow(one.name));
    const row = rows.get(one.name);
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
    fillRow(row, one, most);
  });
  byId("class-filter").hidden = state.classes.length < FILTER_FROM;
  filterRows();
}

/** Let Tab reach only one row, otherwise it would stop 600 times for 300 classes; arrow keys move among the rows. */
function reachRow(row) {
  for (const button of byId("class-list").querySelectorAll("[tabindex='0']")) button.tabIndex = -1;
  for (const button of row?.children ?? []) button.tabIndex = 0;
}

function moveAmongRows(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], row = event.target.closest("li");
  if (!step || !row) return;
  event.preventDefault();
  const shown = [...byId("class-list").children].filter((other) => !other.hidden), next = shown[shown.indexOf(row) + step];
  if (!next) return;
  reachRow(next);
  next.children[[...row.children].indexOf(event.target)].focus();
}

function makeRow(name) {
  const label = element("button", { type: "button", class: "class", tabindex: "-1", "data-class": name }, element("kbd"), dot(name), element("span", { class: "text", text: name, title: name }), element("span", { class: "bar" }, element("i")), element("span", { class: "number" }));
  const edit = element("button", { type: "button", class: "quiet edit", tabindex: "-1", "aria-label": `Edit ${name}`, text: "⋯" });
  label.addEventListener("click", () => assign(name));
  edit.addEventListener("click", () => openClass(name));
  return element("li", {}, label, edit);
}

function fillRow(row, { name, count }, most) {
  const label = row.firstChild, key = keyOf(name), shown = [count, most, key].join();
  if (row.shown === shown) return;
  row.shown = shown;
  setText(label.querySelector("kbd"), (key ?? "").toUpperCase());
  setText(label.querySelector(".number"), thousands(count));
  label.querySelector(".bar i").style.width = `${(100 * count) / most}%`;
  label.setAttribute("aria-label", `${name}, ${plural(count, "image")}`);
  if (key) label.setAttribute("aria-keyshortcuts", key.toUpperCase());
  else label.removeAttribute("aria-keyshortcuts");
}

function filterRows() {
  const wanted = byId("class-filter").hidden ? "" : byId("class-filter").value.trim().toLowerCase();
  for (const [name, row] of rows) row.hidden = !name.toLowerCase().includes(wanted);
  const shown = [...byId("class-list").children].filter((row) => !row.hidden);
  if (!shown.some((row) => row.firstChild.tabIndex === 0)) reachRow(shown[0]);
}

/** Return the name typed into a field, or "" with a message if it cannot be used. */
function typedName(field) {
  const name = field.value.trim().replace(/\s+/g, " ");
  if (name && classNames().includes(name)) {
    say(`The class “${name}” exists already.`);
    return "";
  }
  return name;
}

async function addClass(field) {
  const name = typedName(field);
  if (name && (await saveClasses({ add: name }, `Added the class “${name}”.`))) field.value = "";
  return name;
}

/* The dialog of one class. */

function openClass(name) {
  edited = name;
  setText(byId("class-title"), `“${name}”, ${plural(classCount(name), "image")}`);
  byId("rename-name").value = name;
  const others = classNames().filter((other) => other !== name);
  byId("merge-into").replaceChildren(...others.map((other) => element("option", { value: other, text: other })));
  byId("merge-form").hidden = !others.length;
  byId("merge-confirm").hidden = true;
  openDialog(byId("class-dialog"));
}

async function renameClass() {
  const from = edited, to = byId("rename-name").value.trim().replace(/\s+/g, " ");
  if (!to || to === from) return;
  if (classNames().includes(to)) return confirmMerge(to);
  renamed(from, to);
  if (!(await saveClasses({ rename: { from, to } }, `Renamed “${from}” to “${to}”.`))) return renamed(to, from);
  replaceClass(from, to);
  byId("class-dialog").close();
}

/** Ask before a merge, with the number of images that change. */
function confirmMerge(into) {
  byId("merge-into").value = into;
  const count = classCount(edited);
  setText(byId("merge-confirm").querySelector("p"), `${plural(count, "image")} labeled “${edited}” will be labeled “${into}”, and the class “${edited}” disappears. Undo restores it.`);
  setText(byId("merge-yes"), `Merge ${plural(count, "image")}`);
  byId("merge-confirm").hidden = false;
  byId("merge-yes").focus();
}

async function mergeClass() {
  const from = edited, into = byId("merge-into").value;
  if (!(await saveClasses({ merge: { from, into } }, `Merged “${from}” into “${into}”.`))) return;
  replaceClass(from, into);
  byId("class-dialog").close();
}

/** Show a class under its new name on the images that are loaded. */
function replaceClass(from, to) {
  for (const item of new Set([...batch.items, ...(batch.home ?? [])])) {
    for (const key of ["choice", "proposal", "label"]) if (item[key] === from) item[key] = to;
    refreshTile(item);
  }
  if (batch.query.class === from) showClass(to);
  else drawBatch();
  labeledChanged();
}

/* The first classes. */

function showStart(state) {
  if (!state.classes.length) starting = true;
  const form = byId("start"), first = form.hidden && starting;
  form.hidden = !starting;
  if (!starting) return;
  byId("start-done").hidden = !state.classes.length;
  byId("start-classes").replaceChildren(...state.classes.map((one) => element("span", { class: "chip" }, dot(one.name), one.name)));
  if (first) byId("start-name").focus();
}

function endStart() {
  if (!classNames().length) return byId("start-name").focus();
  starting = false;
  byId("start").hidden = true;
  if (batch.items.length) setCurrent(batchGrid, batchGrid.current);
  say(`Press ${keyOf(classNames()[0])} to label the current image “${classNames()[0]}”.`);
}

byId("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (byId("start-name").value.trim()) await addClass(byId("start-name"));
  else endStart();
});
byId("start-done").addEventListener("click", endStart);
byId("add-form").addEventListener("submit", (event) => { event.preventDefault(); addClass(byId("add-name")); });
byId("class-filter").addEventListener("input", filterRows);
byId("class-list").addEventListener("keydown", moveAmongRows);
byId("class-list").addEventListener("focusin", (event) => reachRow(event.target.closest("li")));
byId("rename-form").addEventListener("submit", (event) => { event.preventDefault(); renameClass(); });
byId("merge-form").addEventListener("submit", (event) => { event.preventDefault(); confirmMerge(byId("merge-into").value); });
byId("merge-yes").addEventListener("click", mergeClass);
byId("merge-no").addEventListener("click", () => { byId("merge-confirm").hidden = true; byId("merge-class").focus(); });
byId("class-close").addEventListener("click", () => byId("class-dialog").close());
byId("class-proposed").addEventListener("click", () => { byId("class-dialog").close(); showClass(edited); });
byId("class-labeled").addEventListener("click", () => { byId("class-dialog").close(); byId("labeled-pane").scrollTop = 0; labeledGrid.current = 0; listed.filter = edited; listed.stale = true; showView("labeled"); });
onState(showClasses);
onState(showStart);
