// The comparison of models with different vocabularies, or with translations that are equal or diverge
// later. Argument 1 is the file of a page, of whose data a copy is changed; argument 2 says how.

import { readFileSync, writeFileSync } from "node:fs";

const CHANGES = {
  vocabularies: (found) => ({ ...found, same_target: false, parting: null, cut: "the first 2 of 3 heads" }),
  languages: (found) => ({ ...found, same_target: false, same_source: false, parting: null, sides: found.sides.toReversed() }),
  equal: (found) => ({ ...found, parting: null, sides: found.sides.map((side) => ({ ...side, translation: "" })) }),
  later: (found) => ({ ...found, same_source: false, parting: { ...found.parting, step: 2 }, sides: found.sides.toReversed() }),
};
const [, , file, change] = process.argv;
const page = readFileSync(file, "utf-8");
const changed = page.replace(/(id="comparison">)(.*?)(<\/script>)/s, (_, before, data, after) =>
  before + JSON.stringify(CHANGES[change.split("/").at(-1)](JSON.parse(data))) + after);
process.argv[2] = `${file}.${change.split("/").at(-1)}.html`;
writeFileSync(process.argv[2], changed);
await import("./side_by_side.mjs");
