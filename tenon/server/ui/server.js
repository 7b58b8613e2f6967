// Who is at the other end: whether the server is ready, which models it has, whether it wants a key.

import { call, setKey } from "./api.js";
import { $, h } from "./dom.js";

const MODEL = "tenon.model";
const AGAIN = 1000;

export class Server {
  constructor() {
    this.dialog = $("key-dialog");
    $("key-form").addEventListener("submit", () => {
      setKey($("key").value.trim());
      this.connect();
    });
    $("model").addEventListener("change", () => localStorage.setItem(MODEL, this.model));
  }

  get model() {
    return $("model").value;
  }

  async connect() {
    clearTimeout(this.timer);
    try {
      await call("ready");
      const { data } = await (await call("v1/models")).json();
      this.offer(data);
      this.state("ready", "Ready");
    } catch (error) {
      if (error.status === 401) return this.askKey();
      this.state(error.status === 503 ? "loading" : "gone", error.message);
      this.timer = setTimeout(() => this.connect(), AGAIN);
    }
  }

  offer(models) {
    const stored = localStorage.getItem(MODEL);
    const chosen = models.some(({ id }) => id === stored) ? stored : models[0].id;
    $("model").replaceChildren(...models.map(({ id }) => h("option", { value: id, selected: id === chosen }, id)));
    $("greeting-model").textContent = chosen;
  }

  /** The key that was given, if any, was wrong. */
  askKey() {
    $("key-wrong").hidden = !sessionStorage.getItem("tenon.key");
    setKey("");
    this.state("locked", "The server asks for an API key");
    if (!this.dialog.open) this.dialog.showModal();
  }

  state(name, text) {
    $("state").dataset.state = name;
    $("state").title = text;
    $("state-text").textContent = text;
  }
}
