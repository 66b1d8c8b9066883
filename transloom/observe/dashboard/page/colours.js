// The colour of a run: that of a hash of its id, so that it is the same for everybody.

export const COLOURS = 8; // style.css has so many: --run-0 to --run-7
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

// Give each run that is shown a place among the lines. The places depend on which runs these are, not
// on their order: of two runs with the same colour, the one with the lower hash keeps it, and the
// other one takes its next free colour.
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

// The line of a place: beyond the last colour they come again, dashed.
export function lineOf(place) {
  return {
    colour: `--run-${place % COLOURS}`,
    dash: DASHES[Math.floor(place / COLOURS) % DASHES.length],
  };
}

// The value of a colour of the style sheet, as it is now.
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// The place that a run tries at a turn: all colours once, its own one first, and then dashed ones.
function placeOf(hash, turn) {
  const step = 1 + 2 * ((hash >>> 8) % (COLOURS / 2)); // odd, so that it comes by each colour
  const dashed = Math.floor(turn / COLOURS);
  return COLOURS * dashed + ((hash + turn * step) % COLOURS);
}

// 32 bits of a text: FNV-1a, mixed as MurmurHash3 does at its end.
function hashOf(text) {
  let hash = 0x811c9dc5;
  for (let n = 0; n < text.length; n++) hash = Math.imul(hash ^ text.charCodeAt(n), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
