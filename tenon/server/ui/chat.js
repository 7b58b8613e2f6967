// The conversation: messages, how a streamed answer grows, what is sent, what is kept in this browser.

const STORED = "tenon.chat";

export function emptyAnswer() {
  return { role: "assistant", content: "", reasoning: "", calls: [], tokens: [], finish: null, usage: null, error: null };
}

/** Add one event of a stream to the answer it belongs to. */
export function grow(answer, chunk) {
  if (chunk.usage) answer.usage = chunk.usage;
  const [choice] = chunk.choices;
  if (!choice) return;
  const { delta } = choice;
  answer.content += delta.content ?? "";
  answer.reasoning += delta.reasoning ?? "";
  for (const part of delta.tool_calls ?? []) {
    answer.calls[part.index] ??= { id: part.id, name: "", arguments: "", result: "" };
    const call = answer.calls[part.index];
    call.name += part.function.name ?? "";
    call.arguments += part.function.arguments ?? "";
  }
  if (choice.logprobs) answer.tokens.push(...choice.logprobs.content);
  if (choice.finish_reason) answer.finish = choice.finish_reason;
}

export class Chat {
  constructor() {
    this.messages = load();
  }

  add(message) {
    this.messages.push(message);
    this.save();
  }

  /** Forget everything from message number `at` on. */
  cut(at) {
    this.messages.length = at;
    this.save();
  }

  /** Kept without the token probabilities, which are many times larger than the text. */
  save() {
    const messages = this.messages.map((message) => (message.tokens ? { ...message, tokens: [] } : message));
    try {
      localStorage.setItem(STORED, JSON.stringify(messages));
    } catch {
      localStorage.removeItem(STORED); // too large, or not allowed: then it lasts as long as the page
    }
  }

  /** The messages of a request. An answer's results of tool calls follow it. */
  request(system) {
    const out = system ? [{ role: "system", content: system }] : [];
    return out.concat(this.messages.flatMap(wire));
  }
}

function wire(message) {
  if (message.role === "user") return [{ role: "user", content: message.content }];
  if (message.calls.length === 0) return message.content ? [{ role: "assistant", content: message.content }] : [];
  const calls = message.calls.map((call) => ({
    id: call.id,
    type: "function",
    function: { name: call.name, arguments: call.arguments },
  }));
  const results = message.calls
    .filter((call) => call.result)
    .map((call) => ({ role: "tool", tool_call_id: call.id, content: call.result }));
  return [{ role: "assistant", content: message.content || null, tool_calls: calls }, ...results];
}

function load() {
  try {
    const messages = JSON.parse(localStorage.getItem(STORED)) ?? [];
    return messages.map((message) => (message.role === "user" ? message : { ...emptyAnswer(), ...message }));
  } catch {
    return [];
  }
}
