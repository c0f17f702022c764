"use strict";
/* The documentation of the interface, from /openapi.json. */

const kind = ({ type, enum: values }) => (values && values.length < 6 ? values.join(", ") : [type].flat().join(" or "));

function table(head, rows) {
  const cells = (name, texts) => element("tr", {}, ...texts.map((text) => element(name, { text })));
  return element("div", { class: "wide" }, element("table", {},
    element("thead", {}, cells("th", head)), element("tbody", {}, ...rows.map((row) => cells("td", row)))));
}

function operation(method, path, about) {
  const parts = [element("h2", { text: `${method.toUpperCase()} ${path}` }), element("p", { text: `${about.description ?? `${about.summary}.`}` })];
  if (about.parameters) {
    parts.push(element("h3", { text: "Query parameters" }),
      table(["name", "type", "default", "meaning"], about.parameters.map(({ name, schema, description }) => [name, kind(schema), schema.default ?? "", description])));
  }
  if (Object.keys(about.responses).length > 1) {
    parts.push(element("h3", { text: "Status" }), table(["status", "meaning"], Object.entries(about.responses).map(([status, { description }]) => [status, description])));
  }
  return element("section", {}, ...parts);
}

for (const place of document.querySelectorAll(".origin")) place.textContent = location.origin;
describe().then((description) => {
  for (const [path, methods] of Object.entries(description.paths))
    for (const [method, about] of Object.entries(methods)) byId("operations").append(operation(method, path, about));
  const body = byId("row").querySelector("tbody");
  for (const [name, schema] of Object.entries(description.components.schemas.Row.properties))
    body.append(element("tr", {}, element("td", { text: name }), element("td", { text: kind(schema) }), element("td", { text: schema.description })));
}).catch(() => {
  byId("problem").textContent = "The description could not be loaded.";
  byId("problem").hidden = false;
});
