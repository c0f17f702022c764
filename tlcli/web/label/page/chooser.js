"use strict";
/* Choosing a class by typing a part of its name, for more classes than there are keys. */

const OFFERED = 40; // classes at most
const chooser = byId("chooser"), chooserInput = byId("chooser-input");
const choices = { names: [], index: 0 };

function openChooser() {
  const count = concerned().length;
  setText(byId("chooser-title"), count ? `Class for ${plural(count, "image")}` : "Find a class");
  chooserInput.value = "";
  openDialog(chooser);
  showChoices();
  chooserInput.focus();
}

/** Rate how well a class matches what was typed: lower is better, Infinity is no match. */
function rate(name, typed) {
  const lower = name.toLowerCase(), recent = store.recent.indexOf(name);
  const late = recent < 0 ? 0.5 : recent / 100;
  if (!typed || lower === typed) return late;
  if (lower.startsWith(typed)) return 1 + late;
  if (lower.split(/[\s_\-/.]+/).some((word) => word.startsWith(typed))) return 2 + late;
  if (lower.includes(typed)) return 3 + late;
  return isSubsequence(typed, lower) ? 4 + late : Infinity;
}

function isSubsequence(typed, name) {
  let at = 0;
  for (const letter of name) if (letter === typed[at]) at += 1;
  return at === typed.length;
}

/** Show the classes that match, best first, and an offer to add what was typed. */
function showChoices() {
  const typed = chooserInput.value.trim().replace(/\s+/g, " "), wanted = typed.toLowerCase();
  const rated = classNames().map((name) => ({ name, rating: rate(name, wanted) })).filter(({ rating }) => rating < Infinity);
  choices.names = rated.sort((a, b) => a.rating - b.rating).slice(0, OFFERED).map(({ name }) => name);
  const options = choices.names.map((name) => choiceOption(name, dot(name), element("span", { class: "text", text: name }), element("span", { class: "number", text: thousands(classCount(name)) }), element("kbd", { text: (keyOf(name) ?? "").toUpperCase() })));
  if (typed && !classNames().includes(typed)) {
    choices.names.push(typed);
    options.push(choiceOption(typed, element("span", { class: "text", text: `Add the class “${typed}”` })));
  }
  options.forEach((option, index) => { option.id = `choice-${index}`; });
  byId("chooser-list").replaceChildren(...options);
  markChoice(0);
}

function choiceOption(name, ...content) {
  const option = element("li", { role: "option", "aria-selected": "false" }, ...content);
  option.addEventListener("click", () => choose(name));
  return option;
}

function markChoice(index) {
  const options = byId("chooser-list").children;
  options[choices.index]?.setAttribute("aria-selected", "false");
  choices.index = Math.max(0, Math.min(index, options.length - 1));
  const option = options[choices.index];
  option?.setAttribute("aria-selected", "true");
  option?.scrollIntoView({ block: "nearest" });
  if (option) chooserInput.setAttribute("aria-activedescendant", option.id);
  else chooserInput.removeAttribute("aria-activedescendant");
}

/** Assign a class, or show the images that are proposed as it. */
function choose(name, { find = false } = {}) {
  chooser.close();
  if (!find) return assign(name);
  viewer.close();
  showClass(name);
}

function chooserKey(event) {
  if (event.isComposing) return;
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 };
  if (event.key in steps) markChoice(choices.index + steps[event.key]);
  else if (event.key === "Enter" && choices.names.length) choose(choices.names[choices.index], { find: event.shiftKey || !concerned().length });
  else return;
  event.preventDefault();
}

chooserInput.addEventListener("input", showChoices);
chooserInput.addEventListener("keydown", chooserKey);
