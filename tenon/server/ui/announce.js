// What a screen reader hears of a growing answer: whole sentences every few seconds, never single tokens.

import { $, h } from "./dom.js";

const PAUSE = 3000;

export function announce(text) {
  const region = $("announcer");
  while (region.childElementCount > 20) region.firstElementChild.remove();
  region.append(h("p", {}, text));
}

export class Reader {
  constructor() {
    this.heard = 0; // characters of the answer that have been announced
    this.last = Date.now();
    announce("Answering.");
  }

  grow(text) {
    if (Date.now() - this.last < PAUSE) return;
    const end = Math.max(...[". ", "! ", "? ", "\n"].map((mark) => text.lastIndexOf(mark))) + 1;
    if (end <= this.heard) return;
    announce(text.slice(this.heard, end).trim());
    this.heard = end;
    this.last = Date.now();
  }

  end(text, ending) {
    const rest = text.slice(this.heard).trim();
    if (rest) announce(rest);
    announce(ending);
  }
}
