// The document: making elements, and changing them to match a tree of nodes {tag, attrs, children}.

/** An element. Properties named on... are listeners; null and false leave an attribute out. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon; its label is read out and shown as a hint. */
export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", class: "quiet", "aria-label": label, title: label, onclick, ...props }, icon(name));
}

export const $ = (id) => document.getElementById(id);

function create(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const element = document.createElement(node.tag);
  for (const [name, value] of Object.entries(node.attrs)) element.setAttribute(name, value);
  element.append(...node.children.map(create));
  return element;
}

function update(existing, node) {
  if (typeof node === "string") {
    const { data } = existing;
    if (data === node) return;
    if (node.startsWith(data)) existing.appendData(node.slice(data.length));
    else existing.data = node;
    return;
  }
  for (const { name } of [...existing.attributes]) if (!(name in node.attrs)) existing.removeAttribute(name);
  for (const [name, value] of Object.entries(node.attrs)) {
    if (existing.getAttribute(name) !== value) existing.setAttribute(name, value);
  }
  patch(existing, node.children);
}

function fits(existing, node) {
  return typeof node === "string"
    ? existing.nodeType === Node.TEXT_NODE
    : existing.nodeType === Node.ELEMENT_NODE && existing.localName === node.tag;
}

/** Make the children of an element, from number `from` on, what the nodes say. Touches only what differs. */
export function patch(parent, nodes, from = 0) {
  let existing = parent.childNodes[from] ?? null;
  for (const node of nodes) {
    if (existing && fits(existing, node)) update(existing, node);
    else {
      const made = create(node);
      if (existing) existing.replaceWith(made);
      else parent.append(made);
      existing = made;
    }
    existing = existing.nextSibling;
  }
  while (existing) {
    const next = existing.nextSibling;
    existing.remove();
    existing = next;
  }
}
