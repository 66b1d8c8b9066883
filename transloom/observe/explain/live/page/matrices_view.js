"use strict";
// Every matrix of the forward pass: the one that is chosen, of each head, and as it was trained beside
// what switches make of it.

function showMatrices(panel) {
  return panel.inTurn.matrices.run(matricesSlices(panel));
}

function* matricesSlices(panel) {
  showArcs(panel);
  const { part, plain, changed, looksAt, model } = panel;
  const heads = hasHeads(looksAt) ? [...Array(model.config.heads).keys()] : [null];
  const results = changed
    ? [["as trained", plain], ["with your changes", changed]] : [["", plain]];
  const shared = document.documentElement.dataset.scale === "shared";
  const all = heads.map((head) => results.map(([, result]) =>
    matrixOf(looksAt, head, result.traced, result.pieces)));
  const grids = all.flatMap((matrices, place) => {
    const head = heads[place];
    const greatest = Math.max(...(shared ? all.flat() : matrices).map(greatestOfMatrix));
    return matrices.map((matrix, n) => {
      const title = [head === null ? nameOf(looksAt) : `head ${head + 1}`, results[n][0]]
        .filter(Boolean).join(", ");
      return { title, matrix, greatest, result: results[n][1] };
    });
  });
  yield* replaceOneByOne(part("matrices"), grids, ({ title, matrix, greatest, result }) =>
    gridOf(title, matrix, greatest, (cell) => openOrigin(panel, cell, result)));
}

// Shows the matrices of another place.
function lookAt(panel, key) {
  panel.looksAt = key;
  panel.part("places").value = key;
  showMatrices(panel);
  panel.part("places").focus();
}
