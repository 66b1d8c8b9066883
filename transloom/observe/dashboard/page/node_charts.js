// CPU, memory and GPUs of each node over time.

import { ChartGrid } from "./chart_grid.js";
import { lineOf } from "./colours.js";
import { element } from "./drawing/elements.js";
import { fill } from "./dom.js";
import { extent, widened } from "./series.js";
import { moment } from "./words.js";

const GIB = 2 ** 30;
const AXIS = { name: "time", said: moment, format: (plot, places) => places.map((place) => moment(place).slice(11, 16)) };
const CHARTS = [
  { title: "CPU", unit: "% of a node", of: (node) => [["", node.cpu_percent]] },
  { title: "memory", unit: "GiB", of: (node) => [["", inGib(node.memory_used_bytes)]] },
  { title: "GPU", unit: "%", of: (node) => node.gpus.map((gpu) => [` GPU ${gpu.index}`, gpu.utilization_percent]) },
  { title: "GPU memory", unit: "GiB", of: (node) => node.gpus.map((gpu) => [` GPU ${gpu.index}`, inGib(gpu.memory_used_bytes)]) },
];

export class NodeCharts {
  root = element("div", {});
  #grid = new ChartGrid();
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
    this.root.replaceChildren(this.#grid.root);
    const whole = widened(extent(nodes.flatMap(([, { time }]) => time)));
    const zoom = (ends) => {
      this.#zoom = ends;
      this.show(this.#answer);
    };
    this.#grid.show(wanted.map(({ title, unit, of }) => {
      let place = 0;
      const lines = nodes.flatMap(([name, node]) => of(node).map(([part, ys]) => (
        { name: name + part, ...lineOf(place++), xs: node.time, ys, raw: null, low: null, high: null })));
      return [{ title, unit, zoom }, { lines, marks: [], axis: AXIS, extent: whole, zoom: this.#zoom, log: false }];
    }));
  }

  redraw() {
    this.#grid.redraw();
  }
}

function inGib(values) {
  return values.map((value) => (value === null ? null : value / GIB));
}
