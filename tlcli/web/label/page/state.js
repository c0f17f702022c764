"use strict";
/* The server's state as last heard, the keys of the classes, and the classes used last. */

const store = { state: null, serial: 0, listeners: [], keys: new Map(), recent: [] };
const DIGITS = [..."123456789"];
/** Letters that are no commands, the ones under the fingers first. */
const LETTERS = [..."fjdkhlwerioqpcvbzny"];
const RECENT = 12; // classes remembered as used last

const classNames = () => (store.state?.classes ?? []).map((one) => one.name);
const classCount = (name) => store.state?.classes.find((one) => one.name === name)?.count ?? 0;
const reviewing = () => store.state?.mode === "review";
const onState = (listener) => store.listeners.push(listener);

/** Take over a state that the server sent, unless a later request was already answered. */
function receive(answer) {
  if (answer.serial < store.serial) return;
  store.state = answer;
  store.serial = answer.serial;
  assignKeys(classNames());
  for (const listener of store.listeners) listener(answer);
}

/** Give new classes keys; classes keep theirs as long as they exist. */
function assignKeys(names) {
  const present = new Set(names);
  for (const name of store.keys.keys()) if (!present.has(name)) store.keys.delete(name);
  const free = new Set([...DIGITS, ...LETTERS]);
  for (const key of store.keys.values()) free.delete(key);
  for (const name of names) {
    if (!free.size) break;
    if (store.keys.has(name)) continue;
    const key = DIGITS.find((digit) => free.has(digit)) ?? [...name.toLowerCase()].find((letter) => free.has(letter)) ?? [...free][0];
    store.keys.set(name, key);
    free.delete(key);
  }
}

const keyOf = (name) => store.keys.get(name);
const classOfKey = (key) => [...store.keys].find(([, its]) => its === key)?.[0];

/** Put a class first among those used last. */
function used(name) {
  store.recent = [name, ...store.recent.filter((other) => other !== name)].slice(0, RECENT);
}

/** Keep a renamed class's key, its color, and its place among those used last. */
function renamed(from, to) {
  if (hues.has(from)) hues.set(to, hues.get(from));
  if (store.keys.has(from) && !store.keys.has(to)) store.keys.set(to, store.keys.get(from));
  store.keys.delete(from);
  store.recent = [...new Set(store.recent.map((name) => (name === from ? to : name)))];
}

const PALETTE = [[211, 37, 51], [30, 88, 56], [358, 70, 61], [176, 31, 52], [114, 31, 45], [47, 84, 58], [315, 26, 58], [353, 100, 76], [21, 25, 49], [255, 45, 62]];
const hues = new Map();

/** Return a class's color, the same as long as the page is open: from the palette for the first ten, otherwise hues spaced by the golden angle. */
function color(name) {
  if (!hues.has(name)) hues.set(name, hues.size);
  const number = hues.get(name);
  const [hue, saturation, lightness] = PALETTE[number] ?? [(number * 137.508 + 215) % 360, number % 2 ? 45 : 70, 48 + (number % 3) * 6];
  return `hsl(${hue} ${saturation}% ${lightness}%)`;
}

/** Return a dot in a class's color. */
function dot(name) {
  const made = element("i", { class: "dot", "aria-hidden": "true" });
  made.style.backgroundColor = color(name);
  return made;
}
