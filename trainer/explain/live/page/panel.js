"use strict";
// The live section: a sentence is typed, and everything in it is computed anew.
//
//   sentence, tag, switches ─computeSentence─▶ plain, changed ─▶ the views, each a file beside this one
{
  const section = document.getElementById("live");
  const part = (name) => section.querySelector(`[data-live="${name}"]`);
  const WAIT_MS = 20; // after the last key: with what is computed then, less than a reader notices
  const state = {
    part,
    model: null,
    switches: freshSwitches(),
    plain: null, // the sentence by the model as it was trained
    changed: null, // and with switches, or null
    looksAt: "decoder.layers.0.cross_attention.weights_hts",
    arcsOf: "decoder.layers.0.cross_attention.weights_hts",
    back: [], // cells that were opened, the last one shown
    own: null, // the sentence and tag for which the page was made
    tree: null, // the panel of the beam tree
    training: null, // the panel of what training sees
  };

  function compute() {
    const sentence = part("sentence").value;
    const tag = part("tag").value || null;
    const started = performance.now();
    try {
      state.plain = computeSentence(state.model, sentence, tag, NOTHING_SWITCHED);
      state.changed = isSwitched(state.switches)
        ? computeSentence(state.model, sentence, tag, state.switches, state.plain) : null;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      part("state").textContent = error.message;
      return;
    }
    const took = Math.max(1, Math.round(performance.now() - started));
    part("state").textContent = `Computed here in ${took} ms.`;
    state.back = [];
    showPieces(state);
    showTranslation(state);
    showSteps(state);
    showLens(state);
    state.training.show();
    showHeads(state);
    showMatrices(state);
    showOrigin(state);
    state.tree.show();
    sayWhose(state.own, { sentence, tag });
  }

  function showChoices() {
    const groups = new Map();
    for (const { group, key } of allPlaces(state.model)) {
      if (!groups.has(group)) groups.set(group, element("optgroup", { label: group }));
      groups.get(group).append(element("option", { value: key }, fullNameOf(key)));
    }
    part("places").replaceChildren(...groups.values());
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
    let waiting = 0;
    const soon = () => {
      clearTimeout(waiting);
      waiting = setTimeout(compute, WAIT_MS);
    };
    part("sentence").addEventListener("input", soon);
    part("tag").addEventListener("change", compute);
    part("places").addEventListener("change", (event) => {
      state.looksAt = event.target.value;
      showMatrices(state);
    });
    part("measure").addEventListener("change", () => showHeads(state));
    part("needed-fold").addEventListener("toggle", () => {
      if (part("needed-fold").open) showNeeded(state);
    });
    document.getElementById("scale").addEventListener("change", () => showMatrices(state));
    part("reset").addEventListener("click", () => {
      state.switches = freshSwitches();
      showSwitches(state, compute);
      compute();
    });
  }

  async function start() {
    state.model = await modelInPage("live-model");
    const typed = part("sentence");
    if (typed.value === typed.defaultValue) typed.value = state.model.sentence;
    state.own = { sentence: state.model.sentence, tag: section.dataset.tag || null };
    state.tree = treePanel(part, state.model, () =>
      ({ ids: state.plain.ids, switches: state.switches }));
    showChoices();
    showSwitches(state, compute);
    listen();
    state.training = trainingPanel(part("training"), state.model, state.model.training, () => state.plain,
      (sentence) => {
        typed.value = sentence;
        compute();
      });
    part("body").hidden = false;
    compute();
  }

  start().catch((error) => {
    part("state").textContent = `This browser cannot run the model (${error.message}). ` +
      "The other sections need nothing of it.";
  });
}
