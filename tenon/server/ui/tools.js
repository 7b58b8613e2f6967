// A tool call as a card: name, arguments, and a place to write what the tool answers.

import { h, icon } from "./dom.js";

/** The card of a call. `update(running)` shows what has come; `send` goes on once every call has a result. */
export function toolCard(call, send) {
  const name = h("span", { class: "tool-name" });
  const body = h("code");
  const result = h("textarea", { rows: "1", "aria-label": `Result of ${call.name}`, placeholder: "What the tool answers" });
  result.value = call.result;
  result.addEventListener("input", () => (call.result = result.value));
  const answer = h("form", { class: "tool-result", hidden: true, onsubmit: submit }, result,
    h("button", { class: "plain", title: "Goes on once every call has a result" }, "Send result"));
  const card = h("section", { class: "card", "aria-label": "Tool call" },
    h("header", {}, icon("tool"), name), h("pre", { tabindex: "0" }, body), answer);

  function submit(event) {
    event.preventDefault();
    if (result.value.trim()) send();
  }

  card.update = (running) => {
    name.textContent = call.name;
    body.textContent = pretty(call.arguments);
    answer.hidden = running;
  };
  return card;
}

/** Arguments with indentation; as they are while they are not complete. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
