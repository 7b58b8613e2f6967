// Links, line breaks and entities inside a paragraph: what stands at one position of a text.
//
// Each reader gets the text and a position and returns {node, length}, or null where there is nothing of its kind.

const TARGET =
  /\([ \t]*(<[^<>\n]*>|[^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)(?:[ \t]+(?:"[^"\n]*"|'[^'\n]*'))?[ \t]*\)/y;
const UNFINISHED_TARGET = /\([^\s()<>]*$/y;
const BARE = /https?:\/\/[^\s<>"'`|]+/y;
const ANGLE = /<(https?:\/\/[^\s<>]+)>/iy;
const LINE_BREAK = /<br[ \t]*\/?>/iy;
const ENTITY = /&(?:(amp|lt|gt|quot|apos|nbsp)|#(\d{1,7}));/y;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

export const BREAK = { tag: "br", attrs: {}, children: [] };

function match(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/** The address, if it is one that may be followed: nothing but the web. */
function safe(address) {
  return /^https?:\/\//i.test(address) && URL.canParse(address) ? address : null;
}

export function link(href, children) {
  const attrs = href ? { href, rel: "noopener noreferrer", target: "_blank" } : {};
  return { tag: "a", attrs, children };
}

/** `(address "title")` behind a bracket: {href, length}. While `open`, an unfinished one has no href yet. */
export function target(text, at, open) {
  if (text[at] !== "(") return null;
  const found = match(TARGET, text, at);
  if (!found) return open && match(UNFINISHED_TARGET, text, at) ? { href: null, length: text.length - at } : null;
  const href = safe(found[1].replace(/^<|>$/g, ""));
  return href && { href, length: found[0].length };
}

/** An address written out. */
export function bare(text, at) {
  if (at > 0 && /\w/.test(text[at - 1])) return null;
  const found = match(BARE, text, at);
  if (!found) return null;
  let href = found[0].replace(/[.,;:!?*_~\]]{1,16}$/, "");
  if (href.endsWith(")") && !href.includes("(")) href = href.slice(0, -1);
  return safe(href) && { node: link(href, [href]), length: href.length };
}

/** `<https://...>`, or the one HTML tag that models write into tables, `<br>`. */
export function angle(text, at) {
  const address = match(ANGLE, text, at);
  if (address && safe(address[1])) return { node: link(address[1], [address[1]]), length: address[0].length };
  const lineBreak = match(LINE_BREAK, text, at);
  return lineBreak && { node: BREAK, length: lineBreak[0].length };
}

export function entity(text, at) {
  const found = match(ENTITY, text, at);
  if (!found) return null;
  const code = Number(found[2]);
  const valid = code > 31 && code < 0x110000 && !(code >= 0xd800 && code < 0xe000);
  const number = valid ? String.fromCodePoint(code) : "\ufffd";
  return { node: found[1] ? ENTITIES[found[1]] : number, length: found[0].length };
}
