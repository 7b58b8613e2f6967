// One answer: ask, read the stream, show it as it grows.

import { Reader } from "./announce.js";
import { ApiError, events } from "./api.js";
import { grow } from "./chat.js";

const ENDINGS = { length: "Ended at the token limit.", stopped: "Stopped.", tool_calls: "A tool is to be called." };

export class Turn {
  constructor(message, view, onframe) {
    this.message = message;
    this.view = view;
    this.onframe = onframe;
    this.abort = new AbortController();
    this.frame = null;
  }

  stop() {
    this.abort.abort();
  }

  /** Runs to the end of the answer; whatever goes wrong is told in the message. Throws only status 401. */
  async run(body) {
    const { message, view } = this;
    this.reader = new Reader();
    this.begun = performance.now();
    view.begin();
    try {
      for await (const chunk of events("v1/chat/completions", body, this.abort.signal)) {
        this.first ??= performance.now();
        grow(message, chunk);
        this.show();
      }
    } catch (error) {
      if (error.name === "AbortError") message.finish = "stopped";
      else message.error = error.message;
      if (!(error instanceof ApiError) && error.name !== "AbortError") console.error(error);
      if (error.status === 401) throw error;
    } finally {
      cancelAnimationFrame(this.frame);
      this.measure();
      view.end();
      this.onframe();
      this.reader.end(message.content, message.error ?? ENDINGS[message.finish] ?? "End of the answer.");
    }
  }

  /** At most once per frame, however fast tokens come. */
  show() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.view.grow();
      this.onframe();
      this.reader.grow(this.message.content);
    });
  }

  measure() {
    if (this.first === undefined) return;
    const tokens = this.message.usage?.completion_tokens;
    this.message.wait = (this.first - this.begun) / 1000;
    if (tokens > 1) this.message.speed = (1000 * (tokens - 1)) / (performance.now() - this.first);
  }
}
