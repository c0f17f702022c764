"use strict";
/* Changes on their way to the server: one after the other, repeated until they are on disk, and undone.
   An image counts as saved only after the server answered. */

const queue = []; // changes not answered yet, oldest first
const past = []; // label changes that were answered, latest last: [{item, before}]; null for a change of the classes
const REMEMBERED = 5000; // changes whose images an undo can bring back
const LONGEST_WAIT = 30; // seconds between two attempts
let draining = false, wake = null;

/** Change the labels of items and save them as one step: each change is {item, label}, {item, skip: true} or {item, remove: true}. */
function saveLabels(changes, text) {
  if (!changes.length) return;
  const undo = changes.map(({ item }) => ({ item, before: { choice: item.choice, status: settled(item) } }));
  for (const change of changes) begin(change);
  const labels = changes.map(({ item, ...change }) => ({ id: item.id, ...change }));
  enqueue({
    path: "/api/labels", body: { tab, labels }, images: changes.length, undo, text,
    done() { for (const change of changes) finish(change); keepPast(undo); batchChanged(); },
    failed() { for (const { item } of undo) item.waiting -= 1; restore(undo); },
  });
  say(text);
}

/** Return what an item was before changes that are still on their way. */
const settled = (item) => (item.status === "saving" ? item.target : item.status);

function begin({ item, label, skip, remove }) {
  item.waiting = (item.waiting ?? 0) + 1;
  item.status = "saving";
  item.target = skip ? "skipped" : remove ? "removed" : "saved";
  if (!skip && !remove) item.choice = label;
  if (typeof label === "string") used(label);
  refreshTile(item);
}

function finish({ item }) {
  item.waiting -= 1;
  if (!item.waiting) item.status = item.target;
  refreshTile(item);
  mirror(item);
}

/** Show a change made in the list of labels also in the batch, which has an item of its own for the image. */
function mirror(item) {
  const other = batch.items.find((one) => one.id === item.id);
  if (!other || other === item) return;
  Object.assign(other, { choice: item.choice, status: item.status === "removed" ? "open" : item.status });
  refreshTile(other);
}

function restore(undo) {
  for (const { item, before } of undo.toReversed()) {
    item.choice = before.choice;
    item.target = before.status;
    if (!item.waiting) item.status = before.status;
    refreshTile(item);
    mirror(item);
  }
  batchChanged();
}

function keepPast(entry) {
  past.push(entry);
  if (past.length > REMEMBERED) past.shift();
}

/** Change the classes: {add}, {rename} or {merge}. Resolves to whether that was done. */
function saveClasses(body, text) {
  return new Promise((resolve) => enqueue({
    path: "/api/classes", body, images: 0,
    done() { keepPast(null); say(text); resolve(true); },
    failed() { resolve(false); },
  }));
}

/** Undo the last step: one that was not sent yet is dropped, otherwise the server undoes it. */
function undo() {
  const last = queue.at(-1);
  if (last?.undo && !last.sent) {
    queue.pop();
    last.failed();
    showSaving();
    return say(`Undone: ${plural(last.images, "label")}.`);
  }
  enqueue({ path: "/api/undo", body: {}, images: 0, undoes: true, done: undone, failed() {} });
}

function undone(answer) {
  const entry = past.pop(), ids = answer.undone ?? [];
  labeledChanged();
  if (!entry || !sameIds(entry, ids)) return undoneElsewhere(ids);
  restore(entry);
  bringBack(entry.map(({ item }) => item).filter((item) => item.status === "open"));
  say(`Undone: ${plural(ids.length, "label")}.`);
}

const sameIds = (entry, ids) => entry.length === ids.length && entry.every(({ item }) => ids.includes(item.id));

/** Undo a change of the classes, or a step of an earlier visit or another tab: the images shown may be out of date. */
function undoneElsewhere(ids) {
  say(ids.length ? `Undone: ${plural(ids.length, "label")}.` : "Undone.");
  if (batch.home) batch.home = [];
  loadBatch();
}

function enqueue(change) {
  queue.push({ ...change, key: randomName() });
  showSaving();
  drain();
}

/** Send the changes in the queue until it is empty. */
async function drain() {
  if (draining) return;
  draining = true;
  for (let attempt = 0; queue.length; showSaving()) {
    const change = queue[0];
    change.sent = true;
    try {
      const answer = await post(change.path, change.body, change.key);
      queue.shift();
      attempt = 0;
      showProblem(null);
      receive(answer);
      change.done(answer);
    } catch (error) {
      if (!(error instanceof RequestError)) { draining = false; throw error; }
      if (error.status === 401 || error.status === 403 || error.temporary) await waitToRetry(change, error, attempt++);
      else reject(change, error);
    }
  }
  draining = false;
}

/** Give up a change that the server refused. */
function reject(change, error) {
  queue.shift();
  change.failed();
  say(`${change.undoes ? "Not undone" : "Not saved"}: ${error.message}`);
}

/** Show why nothing is saved, and wait for the next attempt or for the button. */
async function waitToRetry(change, error, attempt) {
  change.sent = false;
  showProblem(`Not saved: ${waitingText()}. ${error.message} Retrying …`);
  showSaving();
  await Promise.race([pause(1000 * Math.min(LONGEST_WAIT, 2 ** attempt)), new Promise((resolve) => (wake = resolve))]);
}

const unsaved = () => queue.reduce((sum, change) => sum + change.images, 0);
const waitingText = () => (unsaved() ? plural(unsaved(), "label") : plural(queue.length, "change"));

function showProblem(text) {
  const banner = byId("problem");
  banner.hidden = !text;
  if (text) setText(banner.querySelector("span"), text);
}

/** Show in the header whether everything is on disk. */
function showSaving() {
  byId("saving").classList.toggle("waiting", queue.length > 0);
  setText(byId("saving"), queue.length ? (byId("problem").hidden ? "Saving …" : "Not saved") : "Saved");
  byId("undo").disabled = !queue.length && !store.state?.undo.possible;
}

byId("retry").addEventListener("click", () => wake?.());
addEventListener("online", () => wake?.());
addEventListener("beforeunload", (event) => { if (queue.length) event.preventDefault(); });
onState(showSaving);
