// Markdown inside a paragraph. One pass from left to right with a bounded stack, so time is linear.
//
// The result is a list of nodes: a string, or {tag, attrs, children}. Nothing here touches the document, and
// no tag or attribute name ever comes from the text.
//
// `open` says that more text will follow: what is unfinished at the end is then shown as if it were finished
// (bold stays bold while it is being written), or held back where its meaning is not known yet.

import { angle, bare, BREAK, entity, link, target } from "./links.js";

const MAX_OPEN = 64;
const MAX_RUN = 8;
const SPECIAL = /[\\`*_~[\]!<&\n]|https?:\/\//g;
const RUN = /\*+|_+|~+/y;
const TICKS = /`+/g;
const UNDECIDED = /(?:\*+|_+|~+|`+|\\|!?\[[^[\]\n]{0,200}\]?|!|<[^<>\s]{0,200}|&#?\w{0,8})$/;
const PUNCTUATION = /[\p{P}\p{S}]/u;

export function inline(text, open = false) {
  return new Inline(open ? hold(text) : text, open).parse();
}

/** The text without what its end may still turn into something else. */
function hold(text) {
  const found = UNDECIDED.exec(text.slice(-256));
  return found ? text.slice(0, text.length - found[0].length) : text;
}

class Inline {
  constructor(text, open) {
    this.text = text;
    this.open = open;
    this.at = 0;
    this.frames = [{ marker: "", size: 0, children: [] }]; // what has begun, outermost first
    this.closers = null; // positions of runs of backticks, by length
  }

  parse() {
    while (this.at < this.text.length) {
      SPECIAL.lastIndex = this.at;
      const found = SPECIAL.exec(this.text);
      this.push(this.text.slice(this.at, found ? found.index : undefined));
      if (!found) break;
      this.at = found.index;
      this.special(found[0]);
    }
    this.unwind(0, this.open);
    return this.frames[0].children;
  }

  special(mark) {
    switch (mark) {
      case "\\": return this.escape();
      case "`": return this.code();
      case "*": case "_": case "~": return this.emphasis(mark);
      case "[": return this.begin("[");
      case "!": return this.text[this.at + 1] === "[" ? this.begin("![") : this.take("!");
      case "]": return this.bracket();
      case "<": return this.add(angle(this.text, this.at), mark);
      case "&": return this.add(entity(this.text, this.at), mark);
      case "\n": return this.add({ node: BREAK, length: 1 }, mark);
      default: return this.add(this.opener("[") ? null : bare(this.text, this.at), mark);
    }
  }

  push(node) {
    if (node === "") return;
    const { children } = this.frames.at(-1);
    if (typeof node === "string" && typeof children.at(-1) === "string") children[children.length - 1] += node;
    else children.push(node);
  }

  /** Text that means only itself. */
  take(text) {
    this.push(text);
    this.at += text.length;
  }

  add(found, mark) {
    if (!found) return this.take(mark);
    this.push(found.node);
    this.at += found.length;
  }

  begin(marker) {
    if (this.frames.length >= MAX_OPEN) return this.take(marker);
    this.frames.push({ marker, size: 1, children: [] });
    this.at += marker.length;
  }

  /** Index of the innermost frame that a mark may close; 0 if there is none. */
  opener(mark) {
    for (let at = this.frames.length - 1; at > 0; at -= 1) {
      const { marker } = this.frames[at];
      if (marker.endsWith(mark)) return at;
      if (marker.endsWith("[")) return 0; // it began outside of the bracket
    }
    return 0;
  }

  /** End the frames above `at`, whose closing marks have not come (or, if `open`, will come). */
  unwind(at, open = false) {
    while (this.frames.length - 1 > at) {
      const { marker, size, children } = this.frames.pop();
      if (open && !marker.endsWith("[")) {
        if (children.length) this.push(emphasized(marker, size, children));
      } else {
        this.push(marker.repeat(size));
        children.forEach((child) => this.push(child));
      }
    }
  }

  escape() {
    const next = this.text[this.at + 1] ?? "";
    if (next === "\n") this.add({ node: BREAK, length: 2 });
    else if (/[!-/:-@[-`{-~]/.test(next)) this.add({ node: next, length: 2 });
    else this.take("\\");
  }

  code() {
    TICKS.lastIndex = this.at;
    const ticks = TICKS.exec(this.text)[0].length;
    const begin = this.at + ticks;
    const close = this.closer(ticks, begin);
    if (close === undefined && !this.open) return this.take("`".repeat(ticks));
    let code = this.text.slice(begin, close).replaceAll("\n", " ");
    if (code.startsWith(" ") && code.endsWith(" ") && code.trim()) code = code.slice(1, -1);
    this.push({ tag: "code", attrs: {}, children: code ? [code] : [] });
    this.at = close === undefined ? this.text.length : close + ticks;
  }

  /** Where the next run of exactly so many backticks begins. */
  closer(ticks, from) {
    if (!this.closers) {
      this.closers = new Map();
      for (const [run, { index }] of [...this.text.matchAll(TICKS)].map((found) => [found[0], found])) {
        if (!this.closers.has(run.length)) this.closers.set(run.length, { positions: [], next: 0 });
        this.closers.get(run.length).positions.push(index);
      }
    }
    const runs = this.closers.get(ticks);
    while (runs && runs.positions[runs.next] < from) runs.next += 1;
    return runs?.positions[runs.next];
  }

  emphasis(mark) {
    RUN.lastIndex = this.at;
    const run = RUN.exec(this.text)[0];
    if (run.length > MAX_RUN || (mark === "~" && run.length !== 2)) return this.take(run);
    const { opens, closes } = flanks(mark, this.text[this.at - 1], this.text[this.at + run.length]);
    this.at += run.length;
    let size = run.length;
    for (let at; closes && size > 0 && (at = this.opener(mark)); ) {
      this.unwind(at);
      const frame = this.frames.pop();
      const used = Math.min(size, frame.size, 2);
      if (frame.size > used) this.frames.push({ marker: mark, size: frame.size - used, children: [] });
      this.push(emphasized(mark, used, frame.children));
      size -= used;
    }
    if (size > 0 && opens && this.frames.length < MAX_OPEN) {
      this.frames.push({ marker: mark, size, children: [] });
    } else this.push(mark.repeat(size));
  }

  bracket() {
    const at = this.opener("[");
    if (at === 0) return this.take("]");
    this.at += 1;
    this.unwind(at);
    const found = target(this.text, this.at, this.open);
    const { marker, children } = this.frames.pop();
    if (found) return this.add({ node: link(found.href, children), length: found.length });
    [marker, ...children, "]"].forEach((node) => this.push(node));
  }
}

function emphasized(mark, size, children) {
  if (size > 2) return emphasized(mark, size - 2, [emphasized(mark, 2, children)]);
  return { tag: mark === "~" ? "del" : size === 2 ? "strong" : "em", attrs: {}, children };
}

/** Whether a run of marks between two characters may begin or end emphasis (CommonMark 0.31, section 6.2). */
function flanks(mark, before = " ", after = " ") {
  const outside = (character) => /\s/.test(character) || PUNCTUATION.test(character);
  const left = !/\s/.test(after) && (!PUNCTUATION.test(after) || outside(before));
  const right = !/\s/.test(before) && (!PUNCTUATION.test(before) || outside(after));
  if (mark !== "_") return { opens: left, closes: right };
  return { opens: left && (!right || outside(before)), closes: right && (!left || outside(after)) };
}
