// The colour of a run, from a hash of its id, so that all users see the same one.

export const COLOURS = 8; // as in style.css: --run-0 to --run-7
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

// Gives each shown run a line style. The styles depend on the set of runs, not on their order: of
// two runs with the same colour, the one with the lower hash keeps it, and the other takes its next
// free colour.
export class Colours {
  #places = new Map();

  assign(ids) {
    this.#places.clear();
    const taken = new Set();
    const byHash = ids.map((id) => [hashOf(id), id])
      .sort(([a, first], [b, second]) => a - b || (first < second ? -1 : 1));
    for (const [hash, id] of byHash) {
      let turn = 0;
      while (taken.has(placeOf(hash, turn))) turn++;
      this.#places.set(id, placeOf(hash, turn));
      taken.add(placeOf(hash, turn));
    }
  }

  place(id) {
    return this.#places.get(id);
  }
}

// The line of a style index: beyond the last colour, colours repeat with dashes.
export function lineOf(place) {
  return {
    colour: `--run-${place % COLOURS}`,
    dash: DASHES[Math.floor(place / COLOURS) % DASHES.length],
  };
}

// The current value of a colour of the style sheet, which is that of an element.
export function colour(name) {
  colour.probe ??= document.head.appendChild(document.createElement("i"));
  colour.probe.style.color = `var(${name})`;
  return getComputedStyle(colour.probe).color;
}

// The style index that a run tries at an attempt: all colours once, starting with its preferred one, then
// dashed ones.
function placeOf(hash, turn) {
  const step = 1 + 2 * ((hash >>> 8) % (COLOURS / 2)); // odd, so that it reaches each colour
  const dashed = Math.floor(turn / COLOURS);
  return COLOURS * dashed + ((hash + turn * step) % COLOURS);
}

// 32 bits of a text: FNV-1a, with the finalizer of MurmurHash3.
function hashOf(text) {
  let hash = 0x811c9dc5;
  for (let n = 0; n < text.length; n++) hash = Math.imul(hash ^ text.charCodeAt(n), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
