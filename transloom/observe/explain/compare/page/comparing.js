// Compares two models in the page on one sentence: computes the numbers of comparison.py, but without
// rounding, and without leaving anything out.

import { candidatesAt, computeSentenceSlices, shownPiece } from "../../live/page/computing.js";
import { NOTHING_SWITCHED } from "../../live/page/forward.js";
import { attentionsOf } from "../../live/page/heads.js";
import { lensAt, lensSlices } from "../../live/page/lens.js";
import { tensorAt } from "../../live/page/places.js";
import { row } from "../../live/page/tensors.js";

const CANDIDATES_COMPARED = 5;

// `models`: two of loading.js, `names` what they are called.
export function* comparisonSlices(models, names, sentence, tag) {
  const results = [];
  for (const model of models) {
    results.push(yield* computeSentenceSlices(model, sentence, tag, NOTHING_SWITCHED));
  }
  const written = results.map(({ chosen }) => chosen);
  const same_target = sameTexts(models[0].target.pieces, models[1].target.pieces);
  if (same_target) { // the other model reads the first one's translation, too
    results[1] = yield* computeSentenceSlices(
      models[1], sentence, tag, NOTHING_SWITCHED, results[0]);
  }
  const sides = [];
  for (const [n, model] of models.entries()) {
    sides.push(yield* sideSlices(model, names[n], results[n], written[n]));
  }
  return {
    sentence, tag, same_target,
    same_source: sameTexts(sides[0].source, sides[1].source),
    parting: same_target ? partingOf(results, written) : null,
    cut: "",
    sides,
  };
}

// The step in which the translations diverge, and each model's probabilities of both pieces there.
function partingOf(results, written) {
  const step = written[0].findIndex((id, n) => id !== written[1][n]);
  if (step < 0) return null;
  const probabilities = results.map(({ traced }) =>
    written.map((ids) => row(traced.probabilities_tv, step)[ids[step]]));
  return { step, probabilities };
}

function sameTexts(a, b) {
  return a.length === b.length && a.every((text, n) => text === b[n]);
}

function* sideSlices(model, name, result, written) {
  const { chosen, traced, pieces } = result;
  const texts = (ids) => ids.map((id) => model.target.pieces[id]);
  const lens = yield* lensSlices(model, traced);
  const best = ({ id, probability }) => ({ piece: model.target.pieces[id], probability });
  return {
    name,
    source: result.ids.map((id, n) => shownPiece(model, result, n)),
    target: pieces.target,
    asked: texts(chosen),
    written: texts(written),
    translation: result.translation,
    log_probability: result.logProbability,
    steps: chosen.map((_, t) => ({
      best: candidatesAt(result, t, CANDIDATES_COMPARED).map(best),
      asked: row(traced.probabilities_tv, t)[chosen[t]],
    })),
    lens: lens.map(({ name: layer, probabilities_tv }) => ({
      name: layer,
      steps: chosen.map((id, t) => {
        const said = lensAt({ probabilities_tv }, t, id);
        const most = best({ id: said.best, probability: said.probability });
        return { best: [most], asked: said.ofChosen };
      }),
    })),
    attentions: attentionsOf(model).map(({ key }) => {
      const { shape, data } = tensorAt(traced, key).weights_hts;
      return { key, shape, data };
    }),
  };
}
