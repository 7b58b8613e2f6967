// The live view of the engine. It asks once a second, and only while somebody can see it.

import { call } from "./api.js";
import { $ } from "./dom.js";
import { parseMetrics, view } from "./metrics.js";

const PERIOD = 1000;
const SAMPLES = 60;

export class EngineView {
  constructor() {
    this.details = $("engine");
    this.rates = [];
    this.before = null;
    this.timer = null;
    const check = () => this.check();
    this.details.addEventListener("toggle", check);
    document.addEventListener("visibilitychange", check);
    new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting;
      this.check();
    }).observe(this.details);
  }

  /** Start or stop asking. */
  check() {
    const wanted = this.visible && this.details.open && document.visibilityState === "visible";
    if (wanted && !this.timer) this.poll();
    if (!wanted) {
      clearTimeout(this.timer);
      this.timer = null;
      this.before = null; // rates are over short times only
    }
  }

  async poll() {
    this.timer = setTimeout(() => this.poll(), PERIOD);
    const time = performance.now();
    try {
      const values = parseMetrics(await (await call("metrics")).text());
      const { before } = this;
      this.before = { time, values };
      this.show(view(values, before?.values, before ? (time - before.time) / 1000 : 0));
      this.details.classList.remove("stale");
    } catch {
      this.details.classList.add("stale");
    }
  }

  show({ running, waiting, used, total, hitRate, generated, prompted }) {
    this.rates = [...this.rates, generated].slice(-SAMPLES);
    $("stat-running").textContent = running;
    $("stat-waiting").textContent = waiting;
    $("stat-speed").textContent = generated.toFixed(generated < 10 ? 1 : 0);
    $("stat-prompt").textContent = prompted.toFixed(0);
    $("stat-blocks").textContent = `${used.toLocaleString("en")} / ${total.toLocaleString("en")}`;
    $("stat-hits").textContent = hitRate === null ? "–" : `${(100 * hitRate).toFixed(0)} %`;
    bar($("bar-blocks"), total ? used / total : 0);
    bar($("bar-hits"), hitRate ?? 0);
    this.draw();
  }

  draw() {
    const highest = Math.max(...this.rates, 1);
    const x = (i) => 240 - (this.rates.length - 1 - i) * (240 / (SAMPLES - 1));
    const y = (rate) => 46 - 42 * (rate / highest);
    const line = this.rates.map((rate, i) => `${x(i).toFixed(1)},${y(rate).toFixed(1)}`);
    $("spark-line").setAttribute("points", line.join(" "));
    $("spark-area").setAttribute("points", `${x(0).toFixed(1)},48 ${line.join(" ")} 240,48`);
    $("spark").setAttribute("aria-label", `Tokens per second, last minute; highest ${highest.toFixed(0)}`);
    $("spark-top").textContent = this.rates.some((rate) => rate > 0) ? `peak ${highest.toFixed(0)}` : "";
  }
}

function bar(element, fraction) {
  element.style.setProperty("--part", fraction);
}
