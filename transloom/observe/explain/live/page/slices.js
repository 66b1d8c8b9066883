// Long computations in slices, between which the page answers keys, clicks and the scroll bar.
//
// A sliced computation is a generator that yields where it can pause, and returns its result. Its
// name ends in "Slices".

import { nextTask, SLICE_MS } from "../../../drawing/in_view.js";

const WAIT_MS = 150; // after the last key: a pause in typing

// Sliced computations of which one runs at a time:
//
//   run(slices)   ends the one before; resolves to the result, or to undefined if the computation
//                 was ended or refused its input
//   outdate()     ends the one that runs, since its input has changed
//
// `shown`: the elements with the results, marked as stale until there are new ones, or a function that
// returns those that are there now. `refuse` takes the message of a RangeError: the input is refused.
export function slicesInTurn(shown, refuse = null) {
  let newest = null;
  const now = () => (typeof shown === "function" ? shown() : shown);
  const outdate = () => {
    newest = null;
    mark(now(), true);
  };
  const run = async (slices) => {
    outdate();
    newest = slices;
    try {
      for (let until = performance.now() + SLICE_MS; ;) {
        const { done, value } = slices.next();
        if (done) {
          mark(now(), false);
          return value;
        }
        if (performance.now() < until) continue;
        await nextTask();
        if (newest !== slices) return undefined;
        until = performance.now() + SLICE_MS;
      }
    } catch (error) {
      now().forEach((node) => node.removeAttribute("aria-busy"));
      if (!refuse || !(error instanceof RangeError)) throw error;
      refuse(error.message);
      return undefined;
    }
  };
  return { run, outdate };
}

// A listener that computes once the reader pauses, and until then marks the results as stale.
export function whenTyped({ outdate }, compute) {
  let waiting = 0;
  return () => {
    clearTimeout(waiting);
    outdate();
    waiting = setTimeout(compute, WAIT_MS);
  };
}

// Dim elements whose results belong to a former input.
function mark(shown, areStale) {
  for (const node of shown) {
    node.classList.toggle("stale", areStale);
    if (areStale) node.setAttribute("aria-busy", "true");
    else node.removeAttribute("aria-busy");
  }
}

// Put new children in the place of the former ones, one by one; `make` draws one.
export function* replaceOneByOne(parent, items, make) {
  const former = [...parent.children];
  for (const [n, item] of items.entries()) {
    const drawn = make(item);
    if (former[n]) former[n].replaceWith(drawn);
    else parent.append(drawn);
    yield;
  }
  former.slice(items.length).forEach((child) => child.remove());
}
