// Builds the elements of a page. Text becomes a text node here, never markup.

import { visible } from "./text.js";

// element("p", {class: "x", onclick: f, "aria-label": "…"}, child, "text", …): functions listen to
// the event of that name; true and false set or omit an attribute; children are elements, texts, or
// nothing.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.replace(/^on/, ""), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, visible(value));
    }
  }
  made.append(...nodes(children));
  return made;
}

export function nodes(children) {
  return children.flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (typeof child === "object" ? child : document.createTextNode(visible(child))));
}

// The options of a select in groups: [[label, options]], options as pairs [value, text].
export function optionGroups(groups) {
  return groups.map(([label, options]) => element("optgroup", { label },
    options.map(([value, text]) => element("option", { value }, text))));
}

// Makes elements in the namespace of an SVG element.
export function svgMaker({ namespaceURI }) {
  return (name, attributes = {}, ...children) => {
    const made = document.createElementNS(namespaceURI, name);
    Object.entries(attributes).forEach(([key, value]) => {
      if (value !== null) made.setAttribute(key, value);
    });
    made.append(...children);
    return made;
  };
}
