// The page: puts the parts together, and does what buttons and keys ask for.

import { announce } from "./announce.js";
import { Chat, emptyAnswer } from "./chat.js";
import { $ } from "./dom.js";
import { EngineView } from "./engine.js";
import { AnswerView, UserView } from "./message.js";
import { copyText, Panel } from "./panel.js";
import { Server } from "./server.js";
import { Settings } from "./settings.js";
import { nextTheme, theme } from "./theme.js";
import { Turn } from "./turn.js";

const chat = new Chat();
const settings = new Settings();
const server = new Server();
const panel = new Panel();
const prompt = $("prompt");
let turn = null; // the answer under way
let following = true; // the end of the conversation stays in view

const actions = { edit, regenerate, results, copy: copyText };

function add(message) {
  const view = message.role === "user" ? new UserView(message, actions) : new AnswerView(message, actions);
  $("messages").append(view.root);
  return view;
}

function showAll() {
  $("messages").replaceChildren();
  for (const message of chat.messages) add(message).end?.();
  changed();
  follow(true);
}

/** Buttons and greeting as the state has it. */
function changed() {
  document.body.classList.toggle("empty", chat.messages.length === 0);
  document.body.classList.toggle("answering", turn !== null);
  $("new-chat").disabled = chat.messages.length === 0;
  $("send").hidden = turn !== null;
  $("stop").hidden = turn === null;
}

function follow(force = false) {
  following ||= force;
  if (following) $("conversation").scrollTop = $("conversation").scrollHeight;
}

async function answer() {
  const message = emptyAnswer();
  const request = {
    model: server.model || undefined,
    messages: chat.request(settings.values.system.trim()),
    stream: true,
    stream_options: { include_usage: true },
    ...settings.request(),
  };
  chat.add(message);
  const own = (turn = new Turn(message, add(message), () => follow()));
  changed();
  follow(true);
  try {
    await own.run(request);
  } catch {
    server.askKey();
  } finally {
    if (turn === own) turn = null;
    chat.save();
    changed();
  }
}

function send(text) {
  if (turn || !text.trim()) return;
  prompt.value = "";
  resize();
  const message = { role: "user", content: text.trim() };
  chat.add(message);
  add(message);
  answer();
}

function cut(at) {
  turn?.stop();
  turn = null;
  chat.cut(at);
  while ($("messages").childElementCount > at) $("messages").lastElementChild.remove();
}

function regenerate(message) {
  cut(chat.messages.indexOf(message));
  answer();
  prompt.focus();
}

function edit(message, text) {
  cut(chat.messages.indexOf(message));
  send(text);
  prompt.focus();
}

/** Results of tool calls have been written: go on when none is missing. */
function results(message) {
  chat.save();
  if (turn || !message.calls.every((call) => call.result.trim())) return;
  cut(chat.messages.indexOf(message) + 1);
  answer();
  prompt.focus();
}

function newChat() {
  cut(0);
  changed();
  announce("New conversation.");
  prompt.focus();
}

function resize() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

function showTheme(name) {
  const label = `Colours: ${name === "system" ? "as the system" : name}`;
  $("theme").title = label;
  $("theme").setAttribute("aria-label", label);
}

function showProbabilities() {
  const on = settings.values.probabilities === true;
  document.body.classList.toggle("probabilities", on);
  $("probabilities").setAttribute("aria-pressed", String(on));
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send(prompt.value);
});
prompt.addEventListener("input", resize);
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send(prompt.value);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || server.dialog.open) return;
  if (turn) turn.stop();
  else panel.escape();
});
$("stop").addEventListener("click", () => {
  turn?.stop();
  prompt.focus();
});
$("new-chat").addEventListener("click", newChat);
$("theme").addEventListener("click", () => showTheme(nextTheme()));
$("probabilities").addEventListener("click", () => {
  settings.set("probabilities", !settings.values.probabilities);
  showProbabilities();
});
$("examples").addEventListener("click", (event) => {
  if (event.target.matches("button")) send(event.target.textContent);
  prompt.focus();
});
$("conversation").addEventListener("scroll", () => {
  const { scrollTop, scrollHeight, clientHeight } = $("conversation");
  following = scrollHeight - scrollTop - clientHeight < 48;
});
$("conversation").addEventListener("click", (event) => {
  if (event.target.matches(".copy-code")) {
    copyText(event.target.closest(".code").querySelector("code").textContent, event.target);
  }
});

showTheme(theme());
showProbabilities();
showAll();
new EngineView();
server.connect();
