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

/** Send a request with the token, if there is one: in the address, since a proxy may use the header for its own. */
function request(path, settings = {}) {
  const address = new URL(path, location.origin);
  if (token) address.searchParams.set("token", token);
  return fetch(address, { ...settings, cache: "no-store" });
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Load the description of the interface, and show which run is served. */
async function describe() {
  const description = await (await request("/openapi.json")).json();
  byId("title").textContent = description.info.title;
  byId("about").textContent = description.info.description.replace(/^A tlcli run with /, "").replace(/\.$/, "");
  document.title = `${description.info.title}: tlcli serve`;
  return description;
}
