"use strict";
// All heads together: small maps, arcs, and what was needed beside what was looked at.

const MOST_OCCLUDED = 40; // pieces, each of which takes a forward pass

function showHeads(panel) {
  if (panel.part("needed-fold").open) showNeeded(panel);
  return panel.inTurn.heads.run(headsSlices(panel));
}

function* headsSlices(panel) {
  const { part, plain, changed, model } = panel;
  const result = changed ?? plain;
  const byLength = part("measure").value === "lengths";
  const measured = [];
  for (const attention of attentionsOf(model)) {
    const found = byLength ? lengthsTaken(model, result.traced, attention.key, result.switches)
      : tensorAt(result.traced, attention.key).weights_hts;
    measured.push({ attention, found });
    yield;
  }
  const full = byLength ? measured.reduce((most, { found }) =>
    found.data.reduce((a, b) => Math.max(a, b), most), 1e-9) : 1;
  part("measure-scale").textContent = `full colour: ${byLength ? shortNumber(full) : "1"}` +
    (changed ? ", with your changes" : "");
  yield* replaceOneByOne(part("small-maps"), measured, ({ attention, found }) =>
    smallMaps(attention, found,
      labelsOf(`${attention.key}.weights_hts`, result.traced, result.pieces), full,
      () => lookAt(panel, `${attention.key}.weights_hts`)));
}

function showNeeded(panel) {
  return panel.inTurn.needed.run(neededSlices(panel));
}

function* neededSlices({ part, plain, changed, model }) {
  const result = changed ?? plain;
  part("needed").replaceChildren(...(result.ids.length > MOST_OCCLUDED
    ? [element("p", {},
      `These are ${result.ids.length} pieces, but this table supports up to ${MOST_OCCLUDED}.`)]
    : yield* neededBesideLooked(model, result)));
}

// Of the attention whose matrices are shown; with other places, of the last one.
function showArcs(panel) {
  const { part, plain, changed } = panel;
  const base = panel.looksAt.replace(/\.[^.]+$/, "");
  if (base.endsWith("attention")) panel.arcsOf = `${base}.weights_hts`;
  const key = panel.arcsOf;
  const result = changed ?? plain;
  const { rows, columns } = labelsOf(key, result.traced, result.pieces);
  const weights = tensorAt(result.traced, key);
  const whose = changed ? ", with your changes. " : ". ";
  part("arcs-name").textContent = fullNameOf(key) + whose;
  part("legend").replaceChildren(...legendOf(panel.model.config.heads));
  drawArcs(part("arcs"), weights, rows, columns);
  part("arcs-save").replaceChildren();
  savable(part("arcs-save"), {
    title: () => fullNameOf(key), table: () => tableOfArcs(weights, rows, columns),
    svg: () => standalone(part("arcs")),
  });
}
