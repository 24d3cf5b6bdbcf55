"use strict";

// Text is set, never markup: nothing in the document can become part of the page.
function element(name, text, ...children) {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
}

function schemaText(document_, schema) {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return JSON.stringify(name ? document_.components.schemas[name] : schema, null, 2);
}

function section(title, document_, content) {
  const schema = content && content["application/json"] && content["application/json"].schema;
  return schema ? [element("h4", title), element("pre", schemaText(document_, schema))] : [];
}

function operation(document_, path, method, told) {
  const summary = element("summary", "", element("b", method.toUpperCase()), element("code", path));
  const statuses = Object.entries(told.responses)
    .map(([status, response]) => `${status}  ${response.description}`)
    .join("\n");
  return element(
    "details", "", summary,
    element("p", told.description || told.summary || ""),
    ...section("Body", document_, told.requestBody && told.requestBody.content),
    ...section("Answer", document_, told.responses["200"].content),
    element("h4", "Statuses"), element("pre", statuses));
}

async function show() {
  const place = document.getElementById("routes");
  const response = await fetch("/openapi.json");
  if (!response.ok) {
    place.textContent = `The document cannot be read: ${response.status}`;
    return;
  }
  const document_ = await response.json();
  place.textContent = "";
  for (const [path, methods] of Object.entries(document_.paths)) {
    for (const [method, told] of Object.entries(methods)) {
      place.append(operation(document_, path, method, told));
    }
  }
}

show();
