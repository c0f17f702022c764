"use strict";
/* Elements, numbers, and requests: what the pages of `tlcli serve` share. All scripts share one global scope. */

const token = new URL(document.currentScript.src).searchParams.get("token");
const byId = (id) => document.getElementById(id);

/** Create an element with text, attributes and children; text is never parsed as HTML. */
function element(name, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** Send a request with the token, if there is one. */
const request = (path, settings = {}) =>
  fetch(path, { ...settings, headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: "no-store" });

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Load the description of the interface, and show which run is served. */
async function describe() {
  const description = await (await request("/openapi.json")).json();
  byId("title").textContent = description.info.title;
  byId("about").textContent = description.info.description.replace(/^A tlcli run with /, "").replace(/\.$/, "");
  document.title = `${description.info.title}: tlcli serve`;
  return description;
}
