// The live section: a reader types a sentence, and the page computes everything for it.
//
//   sentence, tag, switches ─computeSentence─▶ plain, changed ─▶ the views, each a file beside this one
//
// Each computes in slices once the section is shown, and dims what it has drawn as long as that belongs to a
// former sentence.

import { element, optionGroups } from "../../../drawing/elements.js";
import { counted } from "../../../drawing/numbers.js";
import { computeSentenceSlices } from "./computing.js";
import { NOTHING_SWITCHED } from "./forward.js";
import { showHeads, showNeeded } from "./heads_view.js";
import { modelInPage } from "./loading.js";
import { lookAt, showMatrices } from "./matrices_view.js";
import { openFromMaps, originElement, showOrigin } from "./origin_view.js";
import { allPlaces, fullNameOf } from "./places.js";
import { searchSlices } from "./search.js";
import { slicesInTurn, whenTyped } from "./slices.js";
import { showLens, showSteps } from "./steps_view.js";
import { freshSwitches, isSwitched, showEffect, showSwitches } from "./switches_view.js";
import { trainingPanel } from "./training_panel.js";
import { showPieces } from "./translation_view.js";
import { treePanel } from "./tree_panel.js";
import { showFailure, showOthers, staleNote, typingBox } from "../../walk/first_screen.js";
import { liveTrace } from "../../walk/trace.js";
import { facts, showBeam, showTraceSlices, walkShown } from "../../walk/walk.js";

const section = document.getElementById("live");
const part = (name) => section.querySelector(`[data-live="${name}"]`);
const state = {
  part,
  model: null,
  switches: freshSwitches(),
  plain: null, // the sentence by the model as it was trained
  changed: null, // and with switches, or null
  drawn: null, // the `plain` that this section shows
  drawing: null, // resolves once it is drawn
  looksAt: "decoder.layers.0.cross_attention.weights_hts",
  origin: originElement(), // with back, ahead and map, see origin_view.js
  back: [],
  ahead: [],
  map: null,
  own: null, // the sentence and tag for which the page was made
  first: null, // the box of the first screen
  tree: null, // the panel of the beam tree
  training: null, // the panel of what training sees
  inTurn: { // what computes and draws each part
    body: slicesInTurn(() => [part("body"), ...walkShown()], refuse),
    beam: slicesInTurn([]),
    lens: slicesInTurn([part("lens")]),
    heads: slicesInTurn([part("small-maps")]),
    needed: slicesInTurn([part("needed")]),
    matrices: slicesInTurn([part("matrices")]),
  },
};

async function compute() {
  const sentence = state.first.box.value;
  const tag = part("tag").value || null;
  const started = performance.now();
  state.first.say("Computing …");
  const trace = await state.inTurn.body.run(resultsSlices(sentence, tag));
  if (!trace) return;
  const found = await state.inTurn.beam.run(searchSlices(state.model, state.plain.ids));
  if (found?.length) showBeam(trace, state.model.target.decode(found[0].ids));
  await state.drawing;
  const { length } = state.plain.ids;
  const { longest } = state.model.training;
  await state.first.sayComputed(started, "type any sentence", longest && length > longest
    && ` It has ${counted(length, "piece")}, more than any sentence of the training (${longest}).`);
}

// Draw the newest results, when the section is shown.
function showSection() {
  if (!state.plain || state.drawn === state.plain) return;
  state.drawn = state.plain;
  showPieces(state);
  showEffect(state);
  showSteps(state);
  state.drawing = Promise.all([showLens(state), showHeads(state), showMatrices(state), state.training.show(),
    state.tree.show()]);
}

// The sections of the page follow the model as it was trained; what beam search finds comes later.
function* resultsSlices(sentence, tag) {
  const { model, switches, own } = state;
  const plain = yield* computeSentenceSlices(model, sentence, tag, NOTHING_SWITCHED);
  const changed = isSwitched(switches)
    ? yield* computeSentenceSlices(model, sentence, tag, switches, plain) : null;
  Object.assign(state, { plain, changed, back: [], ahead: [], map: null });
  part("body").hidden = false;
  showOrigin(state);
  const trace = liveTrace(facts, model, plain);
  yield* showTraceSlices(trace); // also this section, if it is the one that the reader has chosen
  showOthers(own.sentence === sentence && own.tag === tag);
  return trace;
}

// Say why nothing was computed, and to which sentence the dimmed results belong.
function refuse(message) {
  state.first.say(message, ...staleNote(state.plain?.sentence));
}

function showChoices() {
  const all = allPlaces(state.model);
  part("places").replaceChildren(...optionGroups([...new Set(all.map(({ group }) => group))].map((title) =>
    [title, all.filter(({ group }) => group === title).map(({ key }) => [key, fullNameOf(key)])])));
  part("places").value = state.looksAt;
  const special = new Set(Object.values(state.model.vocabulary));
  const { reserved, types } = state.model.source;
  const tags = [...reserved].filter(([, id]) => types[id] === "c" && !special.has(id))
    .map(([piece]) => piece);
  part("tag").append(...tags.map((tag) => element("option", { value: tag }, tag)));
  part("tag-label").hidden = tags.length === 0;
  part("tag").value = section.dataset.tag;
}

function listen() {
  part("tag").addEventListener("change", compute);
  part("places").addEventListener("change", (event) => lookAt(state, event.target.value));
  part("measure").addEventListener("change", () => showHeads(state));
  part("needed-fold").addEventListener("toggle", ({ target }) => target.open && showNeeded(state));
  openFromMaps(state);
  part("reset").addEventListener("click", () => {
    state.switches = freshSwitches();
    showSwitches(state, compute);
    compute();
  });
}

section.draw = showSection;

async function start() {
  state.model = await modelInPage("live-model");
  state.own = { sentence: state.model.sentence, tag: section.dataset.tag || null };
  state.tree = treePanel(part, state.model, () =>
    ({ ids: state.plain.ids, switches: state.switches }));
  const examples = state.model.training.pairs.map(([source]) => source);
  state.first = typingBox([state.model.sentence, ...examples], whenTyped(state.inTurn.body, compute));
  showChoices();
  showSwitches(state, compute);
  listen();
  state.training = trainingPanel(part, state.model, state.model.training, () => state.plain,
    state.first.take);
  if (facts.recorded) {
    state.first.say("The command's sentence is too long to be computed here: type another one.");
  } else compute();
}

start().catch(showFailure);
