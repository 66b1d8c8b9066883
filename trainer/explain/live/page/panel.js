"use strict";
// The live section: a sentence is typed, and everything in it is computed anew.
{
  const section = document.getElementById("live");
  const part = (name) => section.querySelector(`[data-live="${name}"]`);
  const STEPS_SHOWN = 5; // candidates of a step
  const WAIT_MS = 120; // after the last key
  const MOST_OCCLUDED = 40; // pieces, each of which takes a forward pass
  const state = {
    model: null,
    switches: freshSwitches(),
    plain: null, // the sentence by the model as it was trained
    changed: null, // and with switches, or null
    looksAt: "decoder.layers.0.cross_attention.weights_hts",
    back: [], // cells that were opened, the last one shown
  };

  let training = null; // the panel of what training sees

  function freshSwitches() {
    return { ...NOTHING_SWITCHED, headsOff: new Set(), residualsOff: new Set() };
  }

  function isSwitched({ headsOff, residualsOff, positions, scaledScores, mask }) {
    return headsOff.size + residualsOff.size > 0 || !positions || !scaledScores || !mask;
  }

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
    showPieces();
    showTranslation();
    showSteps();
    showLens();
    training.show();
    showHeads();
    showMatrices();
    showOrigin();
  }

  function showPieces() {
    const { plain, model } = state;
    const items = plain.ids.map((id, n) => {
      const { text, note } = standsFor(model, plain, n);
      const letters = visibleText(text).replaceAll(" ", "␣");
      return element("li", { class: note.startsWith("unknown") ? "unknown" : null },
        element("b", { dir: "auto" }, visibleText(model.source.pieces[id])),
        element("span", { dir: "auto" }, letters ? `“${letters}”` : "", note ? ` ${note}` : ""),
        element("small", {}, `id ${id}`));
    });
    part("pieces").replaceChildren(...items);
  }

  function showTranslation() {
    const { plain, changed } = state;
    const line = (label, result) => element("p", {}, element("span", { class: "quiet" }, label),
      element("output", { dir: "auto" }, visibleText(result.translation) || "(nothing)"),
      element("small", {}, ` log-probability ${shortNumber(result.logProbability)} nats`));
    part("translation").replaceChildren(
      line(changed ? "As trained: " : "Translation: ", plain),
      ...(changed ? [line("With your changes: ", changed)] : []));
    part("beam").replaceChildren();
    if (part("beam-fold").open) showBeam();
  }

  function showBeam() {
    const found = beamSearch(state.model, state.plain.ids, state.switches);
    part("beam").replaceChildren(...found.map(({ ids, score }) => element("li", {},
      element("span", { dir: "auto" }, visibleText(state.model.target.decode(ids)) || "(nothing)"),
      element("small", {}, ` score ${shortNumber(score)}`))));
  }

  // A row for each step: what went in, and the most probable pieces, each a button to its logit.
  function showSteps() {
    const { plain, changed, model } = state;
    const piece = (id) => visibleText(model.target.pieces[id]);
    const button = (result, t, { id, probability }) => element("button", {
      type: "button", class: id === plain.chosen[t] ? "candidate chosen" : "candidate",
      "aria-label": `${piece(id)}, ${percent(probability)}: where from?`,
      onclick: () => open({ key: "probabilities_tv", head: null, row: t, column: id }, result),
    }, element("b", { dir: "auto" }, piece(id)), ` ${percent(probability)}`);
    const cells = (result, t) => element("td", {}, candidatesAt(result, t, STEPS_SHOWN)
      .map((candidate) => button(result, t, candidate)));
    const rows = plain.chosen.map((id, t) => element("tr", {},
      element("th", { scope: "row" }, `${t + 1}`),
      element("td", { dir: "auto" }, visibleText(plain.pieces.target[t])),
      cells(plain, t), ...(changed ? [cells(changed, t)] : []),
      element("td", { dir: "auto" }, piece(id))));
    const titles = ["step", "goes in", changed ? "most probable, as trained" : "most probable next",
      ...(changed ? ["with your changes"] : []), "chosen"];
    part("steps").replaceChildren(element("table", { class: "steps" },
      element("thead", {}, element("tr", {},
        titles.map((title) => element("th", { scope: "col" }, title)))),
      element("tbody", {}, rows)));
  }

  // A row for each step: what the rows of the layers would say, the last one as the model says it.
  function showLens() {
    const { plain, changed, model } = state;
    const lens = lensOf(model, (changed ?? plain).traced);
    const piece = (id) => visibleText(model.target.pieces[id]);
    const cell = (reading, t) => {
      const { best, probability, ofChosen } = lensAt(reading, t, plain.chosen[t]);
      const agrees = best === plain.chosen[t];
      return element("td", { class: agrees ? "agrees" : null },
        element("b", { dir: "auto" }, piece(best)), ` ${percent(probability)}`,
        agrees ? null : element("small", {}, `chosen: ${percent(ofChosen)}`));
    };
    const lines = plain.chosen.map((id, t) => element("tr", {},
      element("th", { scope: "row" }, `${t + 1}`), lens.map((reading) => cell(reading, t)),
      element("td", { dir: "auto" }, piece(id))));
    const titles = ["step", ...lens.map(({ name }) => name), "chosen"];
    part("lens").replaceChildren(element("table", { class: "steps" },
      ...(changed ? [element("caption", {}, "with your changes")] : []),
      element("thead", {}, element("tr", {},
        titles.map((title) => element("th", { scope: "col" }, title)))),
      element("tbody", {}, lines)));
  }

  function showHeads() {
    const { plain, changed, model } = state;
    const result = changed ?? plain;
    const byLength = part("measure").value === "lengths";
    const measured = attentionsOf(model).map((attention) => ({
      attention,
      found: byLength ? lengthsTaken(model, result.traced, attention.key, result.switches)
        : tensorAt(result.traced, attention.key).weights_hts,
    }));
    const full = byLength ? measured.reduce((most, { found }) =>
      found.data.reduce((a, b) => Math.max(a, b), most), 1e-9) : 1;
    part("measure-scale").textContent = `full colour: ${byLength ? shortNumber(full) : "1"}` +
      (changed ? ", with your changes" : "");
    part("small-maps").replaceChildren(...measured.map(({ attention, found }) =>
      smallMaps(attention, found, full, () => lookAt(`${attention.key}.weights_hts`))));
    if (part("needed-fold").open) showNeeded();
  }

  function lookAt(key) {
    state.looksAt = key;
    part("places").value = key;
    showMatrices();
    part("places").focus();
  }

  function showNeeded() {
    const result = state.changed ?? state.plain;
    part("needed").replaceChildren(...(result.ids.length > MOST_OCCLUDED
      ? [element("p", {},
        `These are ${result.ids.length} pieces; up to ${MOST_OCCLUDED} are tried.`)]
      : neededBesideLooked(state.model, result)));
  }

  // Of the attention whose matrices are shown; of other places, the last one's stay.
  function showArcs() {
    const base = state.looksAt.replace(/\.[^.]+$/, "");
    if (!base.endsWith("attention")) return;
    const result = state.changed ?? state.plain;
    const key = `${base}.weights_hts`;
    const { rows, columns } = labelsOf(key, result.traced, result.pieces);
    const whose = state.changed ? ", with your changes. " : ". ";
    part("arcs-name").textContent = fullNameOf(key) + whose;
    part("legend").replaceChildren(...legendOf(state.model.config.heads));
    drawArcs(part("arcs"), tensorAt(result.traced, key), rows, columns);
  }

  function showMatrices() {
    showArcs();
    const { plain, changed, looksAt, model } = state;
    const heads = hasHeads(looksAt) ? [...Array(model.config.heads).keys()] : [null];
    const results = changed
      ? [["as trained", plain], ["with your changes", changed]] : [["", plain]];
    const shared = document.documentElement.dataset.scale === "shared";
    const all = heads.map((head) => results.map(([, result]) =>
      matrixOf(looksAt, head, result.traced, result.pieces)));
    const drawn = all.flatMap((matrices, place) => {
      const head = heads[place];
      const greatest = Math.max(...(shared ? all.flat() : matrices).map(greatestOfMatrix));
      return matrices.map((matrix, n) => {
        const title = [head === null ? nameOf(looksAt) : `head ${head + 1}`, results[n][0]]
          .filter(Boolean).join(", ");
        return gridOf(title, matrix, greatest, (cell) => open(cell, results[n][1]));
      });
    });
    part("matrices").replaceChildren(...drawn);
  }

  function open(cell, result) {
    state.back.push({ cell, result });
    showOrigin();
    part("origin").focus();
  }

  function showOrigin() {
    const shown = state.back.at(-1);
    if (!shown) {
      part("origin").replaceChildren(element("p", { class: "quiet" },
        "Choose any number above: here stands where it comes from."));
      return;
    }
    const { cell, result } = shown;
    const found = originOf(state.model, result.traced, cell, result.switches);
    part("origin").replaceChildren(
      element("h3", {}, cellName(cell, result)),
      element("p", { class: "value" }, shortNumber(numberAt(result.traced, cell))),
      element("p", {}, element("code", {}, found.formula)),
      ...(found.note ? [element("p", {}, found.note)] : []),
      ...(found.terms.length ? [termsTable(found, cell, result)] : []),
      ...(state.back.length > 1 ? [element("button", { type: "button", onclick: () => {
        state.back.pop();
        showOrigin();
        part("origin").focus();
      } }, "← the number before")] : []));
  }

  function cellName({ key, head, row: r, column }, { traced, pieces }) {
    const { rows, columns, columnsArePieces } = labelsOf(key, traced, pieces);
    const inHead = head === null ? "" : `, head ${head + 1}`;
    const where = columnsArePieces ? `“${visibleText(columns[column])}”` : `number ${column}`;
    return `${fullNameOf(key)}${inHead}: row “${visibleText(rows[r])}”, ${where}`;
  }

  // The terms with the largest shares, and how much the others add up to.
  function termsTable({ terms, added }, cell, result) {
    const MOST = 12;
    const order = terms.map((term, n) => ({ ...term, n }))
      .sort((a, b) => Math.abs(b.value) - Math.abs(a.value) || a.n - b.n);
    const shown = order.slice(0, MOST);
    const rest = order.slice(MOST);
    const multiplied = terms.some(({ b }) => b !== null);
    const name = ({ place, n }) => {
      if (!place) return "the matrix";
      const { rows, columns, columnsArePieces } = labelsOf(place.key, result.traced, result.pieces);
      const elsewhere = place.head !== null && place.head !== cell.head;
      const inHead = elsewhere ? `head ${place.head + 1}, ` : "";
      const label = columnsArePieces ? visibleText(columns[place.column])
        : place.column === cell.column && terms.length < 3 ? nameOf(place.key) : place.column;
      return `${inHead}${label}`;
    };
    const line = (term) => element("tr", {},
      element("th", { scope: "row", dir: "auto" }, name(term)),
      element("td", {}, term.place
        ? element("button", { type: "button", class: "number",
          "aria-label": `${shortNumber(term.a)}: where from?`,
          onclick: () => open(term.place, result) }, shortNumber(term.a))
        : shortNumber(term.a)),
      ...(multiplied ? [element("td", {}, term.b === null ? "" : `× ${shortNumber(term.b)}`)] : []),
      element("td", {}, shortNumber(term.value)));
    const sumLine = (label, value) => element("tr", { class: "sum" },
      element("th", { scope: "row" }, label), element("td"), ...(multiplied ? [element("td")] : []),
      element("td", {}, shortNumber(value)));
    const total = (some) => some.reduce((sum, { value }) => sum + value, 0);
    const titles = ["which", "number", ...(multiplied ? ["times"] : []), "gives"];
    return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Terms" },
      element("table", {},
        element("thead", {}, element("tr", {},
          titles.map((title) => element("th", { scope: "col" }, title)))),
        element("tbody", {}, shown.map(line),
          ...(rest.length ? [sumLine(`${rest.length} smaller ones`, total(rest))] : []),
          ...(added === null ? [] : [sumLine("+ bias", added)]),
          sumLine("sum", total(order) + (added ?? 0)))));
  }

  // What can be switched off: each has a checkbox, checked as long as it is on.
  function showSwitches() {
    const { config } = state.model;
    const box = (label, isOn, set) => element("label", {},
      element("input", { type: "checkbox", checked: isOn, onchange: (event) => {
        set(event.target.checked);
        compute();
      } }), ` ${label}`);
    const inSet = (name, value, label) => box(label, !state.switches[name].has(value), (isOn) =>
      state.switches[name][isOn ? "delete" : "add"](value));
    const flag = (name, label) => box(label, state.switches[name], (isOn) => {
      state.switches[name] = isOn;
    });
    const group = (title, ...boxes) => element("fieldset", {}, element("legend", {}, title), boxes);
    const layers = ["encoder", "decoder"].flatMap((stack) =>
      Array.from({ length: config[stack + "_layers"] }, (_, n) => {
        const parts = ["self_attention", ...(stack === "decoder" ? ["cross_attention"] : [])];
        const layer = `${stack}.${n}`;
        const title = `${stack[0].toUpperCase() + stack.slice(1)} layer ${n + 1}`;
        return group(title,
          ...parts.flatMap((name) => Array.from({ length: config.heads }, (_, h) =>
            inSet("headsOff", `${layer}.${name}.${h}`, `${PART_NAMES[name]}, head ${h + 1}`))),
          ...[...parts, "feed_forward"].map((name) =>
            inSet("residualsOff", `${layer}.${name}`, `way around the ${PART_NAMES[name]}`)));
      }));
    part("switches").replaceChildren(
      group("Everywhere", flag("positions", "positions are added"),
        flag("scaledScores", "scores are divided by √d"),
        flag("mask", "the mask: no row sees later ones")),
      ...layers);
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
      showMatrices();
    });
    part("measure").addEventListener("change", showHeads);
    part("needed-fold").addEventListener("toggle", () => part("needed-fold").open && showNeeded());
    document.getElementById("scale").addEventListener("change", showMatrices);
    part("beam-fold").addEventListener("toggle", () => part("beam-fold").open && showBeam());
    part("reset").addEventListener("click", () => {
      state.switches = freshSwitches();
      showSwitches();
      compute();
    });
  }

  async function start() {
    const packed = JSON.parse(document.getElementById("live-model").textContent);
    state.model = await loadLiveModel(packed);
    const typed = part("sentence");
    if (typed.value === typed.defaultValue) typed.value = packed.sentence;
    showChoices();
    showSwitches();
    listen();
    training = trainingPanel(part("training"), state.model, packed.training, () => state.plain,
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
