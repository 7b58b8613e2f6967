// Markdown blocks: lines to nodes {tag, attrs, children, line}; `line` is the index of a block's first line.
//
// A block ends where a line begins another one, so all but the last block of a growing text are final.
// `open` says that more will follow: on the last line (GROWING) or behind it (ENDED).

import { inline } from "./inline.js";

export const GROWING = 1;
export const ENDED = 2;

const MAX_DEPTH = 8;
const BLANK = /^[ \t]*$/;
const FENCE = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const UNFINISHED_DELIMITERS = /^[ \t|:-]*$/;

const node = (tag, children, attrs = {}) => ({ tag, attrs, children });

export function blocks(lines, open = false, depth = 0) {
  const found = [];
  for (let at = 0; at < lines.length; ) {
    if (BLANK.test(lines[at])) {
      at += 1;
      continue;
    }
    const reader = READERS.find(({ starts }) => starts(lines, at, open, depth)) ?? { read: paragraph };
    const [block, next] = reader.read(lines, at, open, depth);
    block.line = at;
    found.push(block);
    at = next;
  }
  return found;
}

const READERS = [
  { starts: (lines, at) => FENCE.test(lines[at]), read: fence },
  { starts: (lines, at) => HEADING.test(lines[at]), read: heading },
  { starts: (lines, at) => RULE.test(lines[at]), read: (lines, at) => [node("hr", []), at + 1] },
  { starts: (lines, at, open, depth) => depth < MAX_DEPTH && QUOTE.test(lines[at]), read: quote },
  { starts: (lines, at, open, depth) => depth < MAX_DEPTH && ITEM.test(lines[at]), read: list },
  { starts: isTable, read: table },
];

/** Whether a line ends the paragraph before it. */
function interrupts(lines, at, open, depth) {
  const item = ITEM.exec(lines[at]);
  if (item && !RULE.test(lines[at])) {
    return depth < MAX_DEPTH && item[3] !== "" && (item[2].length === 1 || /^1[.)]$/.test(item[2]));
  }
  return READERS.some(({ starts }) => starts(lines, at, open, depth));
}

function paragraph(lines, at, open, depth) {
  let end = at + 1;
  while (end < lines.length && !BLANK.test(lines[end]) && !interrupts(lines, end, open, depth)) end += 1;
  const text = lines.slice(at, end).map((line) => line.trim()).join("\n");
  return [node("p", inline(text, open && end === lines.length)), end];
}

function heading(lines, at, open) {
  const [opening, marks] = HEADING.exec(lines[at]);
  let text = lines[at].slice(opening.length).trim();
  let end = text.length;
  while (text[end - 1] === "#") end -= 1;
  if (end === 0 || /[ \t]/.test(text[end - 1])) text = text.slice(0, end).trimEnd();
  const level = Math.min(marks.length + 2, 6); // the page has h1 and h2
  return [node(`h${level}`, inline(text, open && at === lines.length - 1)), at + 1];
}

function fence(lines, at, open) {
  const [, indent, marks, info] = FENCE.exec(lines[at]);
  const closes = (line) => {
    const text = line.trim();
    return text.length >= marks.length && text === marks[0].repeat(text.length);
  };
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end += 1;
  const code = lines.slice(at + 1, end).map((line) => dedent(line, indent.length));
  const growing = open && end === lines.length;
  if (growing && code.length && /^[ \t]*(`+|~+)$/.test(code.at(-1))) code.pop();
  const language = growing && at === lines.length - 1 ? "" : info.trim().split(/\s/)[0];
  return [codeBlock(language, code.join("\n")), Math.min(end + 1, lines.length)];
}

function codeBlock(language, code) {
  const label = node("span", language ? [language] : [], { class: "language" });
  const copy = node("button", ["Copy"], { type: "button", class: "copy-code" });
  const body = node("code", code ? [code] : []);
  const pre = node("pre", [body], { tabindex: "0" });
  return node("div", [node("div", [label, copy], { class: "code-head" }), pre], { class: "code" });
}

function quote(lines, at, open, depth) {
  const inner = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    if (QUOTE.test(lines[end])) inner.push(lines[end].replace(QUOTE, ""));
    else if (!BLANK.test(lines[end]) && continues(inner, lines, end, open, depth)) inner.push(lines[end]);
    else break;
  }
  return [node("blockquote", blocks(inner, open && end === lines.length, depth + 1)), end];
}

/** Whether a line goes on with a paragraph inside a quote or an item although it lacks its prefix. */
function continues(inner, lines, at, open, depth) {
  const last = inner.at(-1);
  return last !== undefined && !BLANK.test(last) && !FENCE.test(last) && !interrupts(lines, at, open, depth);
}

function list(lines, at, open, depth) {
  const first = ITEM.exec(lines[at])[2];
  const kind = first.at(-1); // -, *, + or what stands behind a number
  const items = [];
  let end = at;
  while (end < lines.length) {
    const found = ITEM.exec(lines[end]);
    if (!found || found[2].at(-1) !== kind || RULE.test(lines[end])) break;
    const [inner, next] = item(lines, end, found, open, depth);
    items.push(node("li", blocks(inner, open && next === lines.length, depth + 1)));
    end = next;
  }
  const ordered = first.length > 1;
  const start = ordered ? Number(first.slice(0, -1)) : 1;
  return [node(ordered ? "ol" : "ul", items, start === 1 ? {} : { start: String(start) }), end];
}

/** Lines of one item without their indentation. Two spaces are enough to belong to it: models count loosely. */
function item(lines, at, [opening, indent, marker], open, depth) {
  const width = indent.length + marker.length + 1;
  const inner = [lines[at].slice(opening.length)];
  let end = at + 1;
  for (; end < lines.length; end += 1) {
    if (BLANK.test(lines[end])) inner.push("");
    else if (indentation(lines[end]) >= indent.length + 2) inner.push(dedent(lines[end], width));
    else if (!ITEM.test(lines[end]) && continues(inner, lines, end, open, depth)) inner.push(lines[end].trim());
    else break;
  }
  return [inner, end];
}

function indentation(line) {
  return line.length - line.trimStart().length;
}

function dedent(line, most) {
  return line.slice(Math.min(indentation(line), most));
}

function isTable(lines, at, open) {
  if (!lines[at].includes("|")) return false;
  const next = lines[at + 1];
  if (open && lines[at].trimStart().startsWith("|") && at + 2 >= lines.length) {
    // It will most likely be one.
    if (next === undefined || (open === GROWING && UNFINISHED_DELIMITERS.test(next))) return true;
  }
  if (next === undefined || !next.includes("|") || !DELIMITERS.test(next)) return false;
  return cells(next).length === cells(lines[at]).length;
}

function cells(line) {
  const text = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return text.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, at, open, depth) {
  const head = cells(lines[at]);
  const marks = lines[at + 1] === undefined ? [] : cells(lines[at + 1]);
  const align = marks.map((cell) => (/^:.*:$/.test(cell) ? "center" : cell.endsWith(":") ? "right" : ""));
  let end = Math.min(at + 2, lines.length);
  while (end < lines.length && !BLANK.test(lines[end]) && !interrupts(lines, end, false, depth)) end += 1;
  const row = (tag, line, growing) =>
    node("tr", head.map((_, column) => {
      const text = line[column] ?? "";
      const attrs = align[column] ? { class: align[column] } : {};
      return node(tag, inline(text, growing && column >= line.length - 1), attrs);
    }));
  const body = lines.slice(at + 2, end).map((line, i) =>
    row("td", cells(line), open && at + 2 + i === lines.length - 1));
  const parts = [node("thead", [row("th", head, open && at === lines.length - 1)])];
  if (body.length) parts.push(node("tbody", body));
  return [node("div", [node("table", parts)], { class: "table", tabindex: "0" }), end];
}
