// An answer as its tokens: tinted by probability, and for the one pointed at or focused, what else was likely.

import { $, h } from "./dom.js";

const bytesOf = (entry) => new TextDecoder().decode(new Uint8Array(entry.bytes));

/** A token as people can read it: line breaks and spaces visible, halves of characters as bytes. */
export function readable(entry) {
  if (bytesOf(entry).includes("\ufffd")) {
    return entry.bytes.map((byte) => `<${byte.toString(16).toUpperCase().padStart(2, "0")}>`).join("");
  }
  const text = entry.token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ | $/g, "␣");
  return text === "" ? "∅" : text;
}

export function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  if (value >= 99.95) return "100 %";
  return value < 0.01 ? "< 0.01 %" : `${value.toPrecision(value < 1 ? 1 : 3)} %`;
}

export class TokenView {
  constructor() {
    this.entries = [];
    this.shown = 0;
    this.root = h("div", {
      class: "tokens",
      role: "listbox",
      "aria-label": "Tokens with their probabilities; arrow keys move",
      onkeydown: (event) => this.key(event),
      onpointerover: (event) => this.point(event.target),
      onpointerleave: () => this.point(document.activeElement),
      onfocusin: (event) => this.point(event.target),
      onfocusout: hideTip,
    });
  }

  /** Add the tokens that are new. */
  show(entries) {
    this.entries = entries;
    for (; this.shown < entries.length; this.shown += 1) {
      const i = this.shown;
      const entry = entries[i];
      const token = h("span", {
        class: "token",
        role: "option",
        tabindex: i === 0 ? "0" : "-1",
        "aria-selected": "false",
        "aria-label": `${readable(entry)}, ${percent(entry.logprob)}`,
        "data-index": String(i),
      });
      token.style.setProperty("--p", Math.exp(entry.logprob).toFixed(3));
      token.textContent = bytesOf(entry).includes("\ufffd") ? readable(entry) : entry.token.replaceAll("\n", "↵\n");
      this.root.append(token);
    }
  }

  key(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };
    if (event.key === "Escape" && !$("token-tip").hidden) {
      hideTip();
      event.stopPropagation();
    }
    if (!(event.key in steps)) return;
    event.preventDefault();
    const current = Number(document.activeElement.dataset.index ?? 0);
    const next = Math.min(Math.max(current + steps[event.key], 0), this.entries.length - 1);
    const token = this.root.children[next];
    this.root.querySelector('[tabindex="0"]').tabIndex = -1;
    token.tabIndex = 0;
    token.focus();
  }

  point(element) {
    const token = element?.closest?.(".token");
    if (!token || !this.root.contains(token)) return hideTip();
    this.pointed?.setAttribute("aria-selected", "false");
    this.pointed = token;
    token.setAttribute("aria-selected", "true");
    token.setAttribute("aria-describedby", "token-tip");
    showTip(token, this.entries[token.dataset.index]);
  }
}

function hideTip() {
  $("token-tip").hidden = true;
  document.querySelector('.token[aria-selected="true"]')?.setAttribute("aria-selected", "false");
}

function showTip(token, entry) {
  const tip = $("token-tip");
  const chosen = (other) => other.token === entry.token && String(other.bytes) === String(entry.bytes);
  const rows = entry.top_logprobs.map((other) => row(other, chosen(other)));
  if (!entry.top_logprobs.some(chosen)) rows.push(row(entry, true));
  const rest = 1 - entry.top_logprobs.reduce((sum, other) => sum + Math.exp(other.logprob), 0);
  const others = rest > 0.0005 ? [h("p", { class: "rest" }, `all others ${percent(Math.log(rest))}`)] : [];
  tip.replaceChildren(h("div", { class: "bars" }, ...rows), ...others);
  tip.hidden = false;
  place(tip, token.getClientRects()[0]);
}

function row(entry, chosen) {
  const bar = h("span", { class: "bar" });
  bar.style.setProperty("--part", Math.exp(entry.logprob));
  const name = h("span", { class: "name" }, readable(entry));
  return h("div", { class: chosen ? "row chosen" : "row" }, name, bar, h("span", { class: "value" }, percent(entry.logprob)));
}

/** Below the token, or above it where there is no room; never outside of the window. */
function place(tip, token) {
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(token.left + token.width / 2 - width / 2, 8), innerWidth - width - 8);
  const below = token.bottom + 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${below + height > innerHeight - 8 ? Math.max(token.top - height - 8, 8) : below}px`;
}
