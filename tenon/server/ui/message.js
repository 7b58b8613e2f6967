// How messages look: the user's, and an answer that grows.

import { h, icon, iconButton } from "./dom.js";
import { MarkdownStream } from "./markdown/stream.js";
import { TokenView } from "./tokens.js";
import { toolCard } from "./tools.js";

/** What may be done with messages is given as functions: {edit, regenerate, results}. */
export class UserView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.root = h("article", { class: "message user", "aria-label": "You" });
    this.show();
  }

  show() {
    const text = h("div", { class: "bubble" }, this.message.content);
    const edit = iconButton("edit", "Edit and send again", () => this.edit());
    this.root.replaceChildren(text, h("div", { class: "actions" }, edit));
  }

  edit() {
    const area = h("textarea", { "aria-label": "Edit your message", rows: "3" });
    area.value = this.message.content;
    const back = () => {
      this.show();
      this.root.querySelector("button").focus();
    };
    const send = () => area.value.trim() && this.actions.edit(this.message, area.value.trim());
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") back();
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    const cancel = h("button", { type: "button", class: "plain", onclick: back }, "Cancel");
    const again = h("button", { type: "button", class: "primary", onclick: send }, "Send");
    this.root.replaceChildren(h("div", { class: "editor" }, area, h("div", { class: "buttons" }, cancel, again)));
    area.focus();
  }
}

export class AnswerView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.shown = { content: 0, reasoning: 0 };
    this.thoughts = h("div", { class: "prose" });
    this.summary = h("span", {}, "Reasoning");
    this.reasoning = h("details", { class: "reasoning", hidden: true }, h("summary", {}, icon("chevron"), this.summary), this.thoughts);
    this.text = h("div", { class: "prose answer" });
    this.cards = h("div", { class: "cards" });
    this.tokens = new TokenView();
    this.note = h("div", { class: "note" });
    this.foot = h("footer", { class: "actions" });
    this.root = h("article", { class: "message assistant", "aria-label": "Answer" },
      this.reasoning, this.text, this.tokens.root, this.cards, this.note, this.foot);
    this.streams = { content: new MarkdownStream(this.text), reasoning: new MarkdownStream(this.thoughts) };
  }

  /** Show what has come since the last time. */
  grow() {
    for (const part of ["content", "reasoning"]) {
      const text = this.message[part];
      if (text.length > this.shown[part]) this.streams[part].push(text.slice(this.shown[part]));
      this.shown[part] = text.length;
    }
    const thinking = this.message.reasoning !== "";
    this.reasoning.hidden = !thinking;
    if (thinking) {
      const busy = this.running && !this.message.content && this.message.calls.length === 0;
      this.summary.textContent = busy ? "Reasoning …" : "Reasoning";
      this.reasoning.classList.toggle("busy", busy);
    }
    this.tokens.show(this.message.tokens);
    this.growCards();
  }

  growCards() {
    const { calls } = this.message;
    while (this.cards.childElementCount < calls.length) {
      this.cards.append(toolCard(calls[this.cards.childElementCount], () => this.actions.results(this.message)));
    }
    calls.forEach((call, i) => this.cards.children[i].update(this.running));
  }

  begin() {
    this.running = true;
    this.root.setAttribute("aria-busy", "true");
    this.root.classList.add("running");
  }

  /** The answer is over, for whatever reason: `message.error` and `message.finish` say. */
  end() {
    this.running = false;
    this.grow();
    this.streams.content.finish();
    this.streams.reasoning.finish();
    this.root.removeAttribute("aria-busy");
    this.root.classList.remove("running");
    this.showNote();
    this.showFoot();
  }

  showNote() {
    const { error, finish } = this.message;
    this.note.replaceChildren();
    if (error) {
      const retry = h("button", { type: "button", class: "plain", onclick: () => this.actions.regenerate(this.message) }, "Try again");
      this.note.append(h("div", { class: "error", role: "alert" }, h("p", {}, error), retry));
    } else if (finish === "length") this.note.append(h("p", { class: "hint" }, "Ended at the token limit."));
    else if (finish === "stopped") this.note.append(h("p", { class: "hint" }, "Stopped."));
  }

  showFoot() {
    const copy = iconButton("copy", "Copy the answer", () => this.actions.copy(this.message.content, copy));
    const again = iconButton("again", "Regenerate", () => this.actions.regenerate(this.message));
    this.foot.replaceChildren(copy, again, h("span", { class: "figures" }, figures(this.message)));
  }
}

/** Tokens, speed and time to the first token. */
function figures({ usage, speed, wait }) {
  const parts = [];
  if (usage) parts.push(`${usage.completion_tokens} tokens`);
  if (speed) parts.push(`${speed.toFixed(speed < 10 ? 1 : 0)} tokens/s`);
  if (wait) parts.push(`first after ${wait < 1 ? `${Math.round(1000 * wait)} ms` : `${wait.toFixed(1)} s`}`);
  if (usage?.prompt_tokens_details?.cached_tokens) {
    parts.push(`${usage.prompt_tokens_details.cached_tokens} of ${usage.prompt_tokens} prompt tokens cached`);
  }
  return parts.join(" · ");
}

