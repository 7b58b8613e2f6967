// The panel beside the conversation, and the clipboard.

import { announce } from "./announce.js";
import { $, h } from "./dom.js";

const STORED = "tenon.panel";
const WIDE = matchMedia("(min-width: 62rem)");

export class Panel {
  constructor() {
    $("panel-toggle").addEventListener("click", () => this.show($("panel").hidden));
    $("panel-close").addEventListener("click", () => this.show(false));
    WIDE.addEventListener("change", () => WIDE.matches || this.show(false, false));
    this.show(WIDE.matches && localStorage.getItem(STORED) !== "closed", false);
  }

  /** Where the window is narrow the panel covers the conversation, so the focus goes with it. */
  show(open, byUser = true) {
    $("panel").hidden = !open;
    $("panel-toggle").setAttribute("aria-expanded", String(open));
    if (!byUser) return;
    localStorage.setItem(STORED, open ? "open" : "closed");
    if (open) $("panel-title").focus();
    else $("panel-toggle").focus();
  }

  escape() {
    if (!$("panel").hidden && !WIDE.matches) this.show(false);
  }
}

/** Copy, and say so on the button for a moment. */
export async function copyText(text, button) {
  const done = await (navigator.clipboard?.writeText(text) ?? Promise.reject(new Error("not secure"))).then(
    () => true,
    () => copyOldWay(text),
  );
  announce(done ? "Copied." : "Could not copy.");
  button.classList.add(done ? "copied" : "failed");
  setTimeout(() => button.classList.remove("copied", "failed"), 1500);
}

/** Without https there is no clipboard API, except on localhost. */
function copyOldWay(text) {
  const area = h("textarea", { class: "offscreen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
