// Controls of the request: a form made from a table, kept in this browser. An empty field is not sent, so the
// server's default holds; whether a value is allowed is the server's business too.

import { $, h } from "./dom.js";

const STORED = "tenon.settings";
export const TOP_LOGPROBS = 8;

// name, label, hint, attributes of the input
const NUMBERS = [
  ["temperature", "Temperature", "0 takes the likeliest token", { min: 0, max: 2, step: 0.1 }],
  ["top_p", "Top p", "Keep the likeliest tokens that add up to p", { min: 0, max: 1, step: 0.05 }],
  ["top_k", "Top k", "Keep the k likeliest tokens", { min: 0, step: 1 }],
  ["min_p", "Min p", "Keep tokens at least this likely next to the likeliest", { min: 0, max: 1, step: 0.01 }],
  ["max_tokens", "Max tokens", "The answer ends here at the latest", { min: 1, step: 1 }],
  ["seed", "Seed", "The same seed gives the same answer", { step: 1 }],
  ["presence_penalty", "Presence penalty", "Against tokens that occurred", { min: -2, max: 2, step: 0.1 }],
  ["frequency_penalty", "Frequency penalty", "Against tokens that occurred often", { min: -2, max: 2, step: 0.1 }],
  ["repetition_penalty", "Repetition penalty", "Above 1: less of what is there", { min: 0.1, max: 2, step: 0.05 }],
];
const PLACEHOLDERS = { seed: "random", max_tokens: "all that fits" };
const EFFORTS = ["", "none", "low", "medium", "high"];
const FIRST = { temperature: "0.7", system: "", tools: "", reasoning_effort: "", probabilities: false };

export class Settings {
  constructor() {
    this.values = { ...FIRST, ...load() };
    $("numbers").replaceChildren(...NUMBERS.map((spec) => this.number(spec)), this.effort());
    this.bind($("system"), "system");
    this.bind($("tools"), "tools");
    $("tools").addEventListener("input", () => this.checkTools());
    $("reset").addEventListener("click", () => this.reset());
    this.checkTools();
  }

  number([name, label, hint, attributes]) {
    const id = `set-${name}`;
    const placeholder = PLACEHOLDERS[name] ?? "default";
    const input = h("input", { id, type: "number", inputmode: "decimal", placeholder, title: hint, ...attributes });
    input.step = "any"; // arrows still move by the step below
    input.dataset.step = attributes.step;
    input.addEventListener("keydown", step);
    this.bind(input, name);
    return h("div", { class: "field" }, h("label", { for: id, title: hint }, label), input);
  }

  effort() {
    const options = EFFORTS.map((value) => h("option", { value }, value || "default"));
    const select = h("select", { id: "set-reasoning_effort" }, ...options);
    this.bind(select, "reasoning_effort");
    return h("div", { class: "field" }, h("label", { for: "set-reasoning_effort" }, "Reasoning effort"), select);
  }

  bind(element, name) {
    element.value = this.values[name] ?? "";
    element.dataset.setting = name;
    element.addEventListener("input", () => this.set(name, element.value));
  }

  set(name, value) {
    this.values[name] = value;
    localStorage.setItem(STORED, JSON.stringify(this.values));
  }

  reset() {
    const { probabilities } = this.values;
    this.values = { ...FIRST, probabilities };
    for (const element of document.querySelectorAll("[data-setting]")) {
      element.value = this.values[element.dataset.setting] ?? "";
    }
    this.set("probabilities", probabilities);
    this.checkTools();
  }

  checkTools() {
    const wrong = this.values.tools.trim() !== "" && this.tools() === null;
    $("tools").setAttribute("aria-invalid", String(wrong));
    $("tools-error").hidden = !wrong;
  }

  /** The list of tools; null if the text is none. */
  tools() {
    try {
      const tools = JSON.parse(this.values.tools);
      return Array.isArray(tools) ? tools : null;
    } catch {
      return null;
    }
  }

  /** Fields of a chat request. */
  request() {
    const fields = {};
    for (const [name] of NUMBERS) {
      const value = String(this.values[name] ?? "").trim();
      if (value !== "") fields[name] = Number(value);
    }
    if (this.values.reasoning_effort) fields.reasoning_effort = this.values.reasoning_effort;
    if (this.values.probabilities) Object.assign(fields, { logprobs: true, top_logprobs: TOP_LOGPROBS });
    const tools = this.tools();
    if (tools?.length) fields.tools = tools;
    return fields;
  }
}

function step(event) {
  const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (!direction || event.target.value === "") return;
  event.preventDefault();
  const { min, max, dataset } = event.target;
  const value = Number(event.target.value) + direction * Number(dataset.step);
  const bounded = Math.min(Math.max(value, min === "" ? -Infinity : min), max === "" ? Infinity : max);
  event.target.value = String(Number(bounded.toFixed(4)));
  event.target.dispatchEvent(new Event("input"));
}

function load() {
  try {
    return JSON.parse(localStorage.getItem(STORED)) ?? {};
  } catch {
    return {};
  }
}
