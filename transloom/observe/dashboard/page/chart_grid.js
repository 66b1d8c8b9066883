// Charts side by side. They are kept, receive new data, and show the same position of the axis.

import { Chart } from "./chart.js";
import { element } from "./drawing/elements.js";

export class ChartGrid {
  root = element("div", { class: "charts" });
  #charts = new Map(); // by title

  // `drawn`: pairs of a chart's form, {title, unit} and what it tells (see Chart), and its content.
  show(drawn) {
    const charts = drawn.map(([form, content]) => {
      const chart = this.#chart(form);
      chart.show(content);
      return chart.root;
    });
    const { children } = this.root;
    if (charts.length !== children.length || charts.some((chart, n) => chart !== children[n])) this.root.replaceChildren(...charts);
  }

  redraw() {
    for (const chart of this.#charts.values()) if (chart.root.isConnected) chart.redraw();
  }

  #chart(form) {
    const kept = this.#charts.get(form.title);
    if (kept?.unit === form.unit) return kept;
    const chart = new Chart({ ...form, cursor: (x) => this.#charts.forEach((other) => {
      if (other !== chart && other.root.isConnected) other.pointAt(x);
    }) });
    this.#charts.set(form.title, chart);
    return chart;
  }
}
