"use strict";
/* Elements, numbers, and messages: helpers that know nothing of labels. All scripts of the page share one global scope. */

const byId = (id) => document.getElementById(id);

/** Create an element with text, attributes and children; text is never parsed as HTML. */
function element(name, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** Create an element of an SVG drawing. */
function drawn(name, { text, ...attributes } = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** Change a text only where it differs, so that nothing is drawn or announced twice. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const thousands = (number) => number.toLocaleString("en-US");
const plural = (number, noun, nouns = `${noun}s`) => `${thousands(number)} ${number === 1 ? noun : nouns}`;

/** Format a share; only exactly 1 is 100 %. */
const percent = (share) => `${share < 1 ? Math.min(99, Math.round(100 * share)) : 100} %`;

/** Show what happened and announce it to screen readers; the same text twice is announced twice. */
function say(text) {
  const message = byId("message");
  message.textContent = message.textContent === text ? `${text}\u00a0` : text;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let lastInput = "";
addEventListener("pointerdown", () => { lastInput = "pointer"; }, { capture: true });
addEventListener("keydown", () => { lastInput = "key"; }, { capture: true });

/** Open a dialog; a click beside it closes it. The focus then returns to the button that opened it, but after a click
    on that button to the images, so that Enter does not press it again. */
function openDialog(dialog) {
  if (dialog.open) return;
  dialog.showModal();
  if (lastInput === "pointer") dialog.addEventListener("close", focusImages, { once: true });
  dialog.onclick = (event) => { if (event.target === dialog && outside(dialog, event)) dialog.close(); };
}

function outside(dialog, event) {
  const box = dialog.getBoundingClientRect();
  return event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom;
}

/** Return the dialog on top; a dialog only opens another one that is further down in label.html. */
const openedDialog = () => [...document.querySelectorAll("dialog[open]")].at(-1);

/** Remember a setting of this browser; private windows may refuse, which is harmless. */
function remember(key, value) {
  try { localStorage.setItem(`tlcli-label-${key}`, value); } catch { /* not remembered */ }
}

function remembered(key, otherwise) {
  try { return localStorage.getItem(`tlcli-label-${key}`) ?? otherwise; } catch { return otherwise; }
}
