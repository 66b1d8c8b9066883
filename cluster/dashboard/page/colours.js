// Which colour a run has: the first free one, kept as long as the run is shown.

export const COLOURS = 8; // style.css has so many: --run-0 to --run-7
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

// Gives each run a place among the lines, without a change for those that have one.
export class Colours {
  #places = new Map();

  assign(ids) {
    for (const id of this.#places.keys()) if (!ids.includes(id)) this.#places.delete(id);
    for (const id of ids) if (!this.#places.has(id)) this.#places.set(id, this.#free());
  }

  place(id) {
    return this.#places.get(id);
  }

  #free() {
    const taken = new Set(this.#places.values());
    let place = 0;
    while (taken.has(place)) place++;
    return place;
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
