// CPU, memory and GPUs of each node over time.

import { Chart } from "./chart.js";
import { lineOf } from "./colours.js";
import { element } from "./drawing/elements.js";
import { fill } from "./dom.js";
import { extent, widened } from "./series.js";
import { moment } from "./words.js";

const GIB = 2 ** 30;
const AXIS = { name: "time", format: (plot, places) => places.map((place) => moment(place).slice(11, 16)) };
const CHARTS = [
  { key: "cpu", title: "CPU", unit: "% of a node", of: (node) => [["", node.cpu_percent]] },
  { key: "memory", title: "memory", unit: "GiB", of: (node) => [["", inGib(node.memory_used_bytes)]] },
  { key: "gpu", title: "GPU", unit: "%", of: (node) => node.gpus.map((gpu) => [` GPU ${gpu.index}`, gpu.utilization_percent]) },
  { key: "gpu memory", title: "GPU memory", unit: "GiB", of: (node) => node.gpus.map((gpu) => [` GPU ${gpu.index}`, inGib(gpu.memory_used_bytes)]) },
];

export class NodeCharts {
  root = element("div", {});
  #charts = new Map();
  #grid = element("div", { class: "charts" });
  #zoom = null;
  #answer = null;

  // `answer`: of /api/runs/ID/nodes.
  show(answer) {
    this.#answer = answer;
    const nodes = Object.entries(answer.nodes ?? {});
    const wanted = CHARTS.filter(({ of }) => nodes.some(([, node]) => of(node).length));
    if (!wanted.length) {
      fill(this.root, element("p", { class: "quiet" }, answer.problem ?? "No node usage was recorded."));
      return;
    }
    this.root.replaceChildren(this.#grid);
    const roots = wanted.map((kind) => this.#chart(kind).root);
    if (roots.length !== this.#grid.children.length) this.#grid.replaceChildren(...roots);
    this.#draw(wanted, nodes);
  }

  redraw() {
    for (const chart of this.#charts.values()) chart.redraw();
  }

  #draw(wanted, nodes) {
    const whole = widened(extent(nodes.flatMap(([, { time }]) => time)));
    for (const kind of wanted) {
      let place = 0;
      const lines = nodes.flatMap(([name, node]) => kind.of(node).map(([part, ys]) => (
        { name: name + part, ...lineOf(place++), xs: node.time, ys, raw: null, low: null, high: null })));
      this.#chart(kind).show({ lines, marks: [], axis: AXIS, extent: whole, zoom: this.#zoom, log: false });
    }
  }

  #chart({ key, title, unit }) {
    if (!this.#charts.has(key)) {
      const chart = new Chart({
        title, unit,
        zoom: (ends) => {
          this.#zoom = ends;
          this.show(this.#answer);
        },
        cursor: (x) => [...this.#charts.values()].filter((other) => other !== chart).forEach((other) => other.pointAt(x)),
      });
      this.#charts.set(key, chart);
    }
    return this.#charts.get(key);
  }
}

function inGib(values) {
  return values.map((value) => (value === null ? null : value / GIB));
}
