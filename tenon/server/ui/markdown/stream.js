// Markdown that grows. Finished blocks are never looked at again, so a long answer costs no more per token
// than a short one; the last block is parsed anew and only what differs is changed in the document.

import { patch } from "../dom.js";
import { blocks, ENDED, GROWING } from "./blocks.js";

// A last line that may still become a list, a heading, a rule, a fence ...
const UNDECIDED = /^[\s>]*(?:[-*+_=#`~|:]+|\d{1,9}[.)]?)?[ \t]*$/;

export class MarkdownStream {
  constructor(target) {
    this.target = target;
    this.tail = ""; // source of the blocks that are not final
    this.final = 0; // number of children that are
  }

  push(text) {
    this.tail += text;
    this.render(true);
  }

  finish() {
    this.render(false);
  }

  render(open) {
    const lines = this.tail.split("\n");
    const last = lines.length - 1;
    const held = open && UNDECIDED.test(lines[last]);
    const found = blocks(held ? lines.slice(0, -1) : lines, open && (held ? ENDED : GROWING));
    patch(this.target, found, this.final);
    // The line that is still growing decides what it is, and whether the line before it heads a table. A block
    // that began earlier is settled, and with it all before it.
    const settled = found.findLastIndex(({ line }) => line < last - 1);
    if (settled <= 0) return;
    this.final += settled;
    this.tail = lines.slice(found[settled].line).join("\n");
  }
}

export function markdown(target, text) {
  const stream = new MarkdownStream(target);
  stream.tail = text;
  stream.finish();
}
