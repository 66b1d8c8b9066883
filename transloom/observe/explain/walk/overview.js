// The first section: the parts that are the same for every model.

import { formatCount } from "../../drawing/numbers.js";
import { leftOut } from "./maps.js";
import { heading, idsTable, link, table, text, tokens } from "../../drawing/parts.js";

// `noun` is the input of the model, `layers` says how many there are, `about` draws what is said of
// the input, `cuts` say what the page leaves out.
export function overviewOf(model, { title, lead, noun, layers, about, cuts }) {
  return {
    group: "The model", name: "Overview", title, lead, shows: {},
    parts: () => [
      heading("The model as a figure"),
      text(
        "Each box shows its shapes and its number of parameters. The numbers add up to the model's " +
        `${formatCount(model.parameters)} parameters. Choose a box to see its numbers for this ` +
        `${noun}. Rows of numbers go upwards along the arrows.`),
      model.places.map((one) => link(one.title, one.place)),
    ],
    after: () => [
      heading(`The ${noun}`), about(), heading("The model"), modelTable(model, layers),
      howToRead(cuts.filter(Boolean)),
    ],
  };
}

// The pieces of a text, which the box `key`.ids stands for; `ends` describes the first and the last one.
export function piecesSection(pieces, key, ends) {
  return {
    group: "Input",
    name: "Pieces and ids",
    title: "Pieces and their ids",
    lead: "The model knows no letters, only a list of pieces: words, or parts of rarer words. A " +
      "tokenizer splits the text into pieces. Each piece has a number, its id.",
    parts: () => [
      tokens("Pieces", pieces.texts), idsTable(pieces),
      text(`▁ represents a space, and ␊ a line end. ${ends}`),
    ],
    shows: { "": [`${key}.ids`] },
  };
}

export function cutsOfForm(form, limits) {
  return [
    leftOut(form.heads, limits.heads, "heads"), leftOut(form.width, limits.numbers, "numbers of a vector"),
    leftOut(form.inner_width, limits.numbers, "inner numbers"),
  ];
}

export function whereWeightsAre({ parameters, stacks }) {
  const names = stacks.length > 1 ? ["the encoder's layers", "the decoder's layers"] : ["the layers"];
  const inLayers = stacks.reduce((sum, count) => sum + count, 0);
  return `${formatCount(parameters)}: ` +
    `${stacks.map((count, n) => `${formatCount(count)} in ${names[n]}, `).join("")}` +
    `and ${formatCount(parameters - inLayers)} in embeddings and other parts outside the layers`;
}

function modelTable(model, layers) {
  const { form, vocabulary_size, checkpoint } = model;
  const norm = form.pre_norm ? "before each sub-layer (pre-norm)" : "after each sum (post-norm)";
  return table(["property", "of this model"], [
    ["layers", layers],
    ["width", `${form.width} numbers for each piece`],
    ["heads", `${form.heads}, each ${form.head_width} wide` +
      (form.groups === form.heads ? "" : `; ${form.groups} of keys and values`)],
    ["feed-forward", `${form.inner_width} inner numbers`],
    ["normalisation", form.norm_kind === "layer" ? norm : `${form.norm}, ${norm}`],
    ["pieces", formatCount(vocabulary_size)],
    ["parameters", whereWeightsAre(model)],
    ["weights", checkpoint],
  ]);
}

function howToRead(cuts) {
  return [
    heading("How to read this page"),
    text(
      "Use the buttons above to go to the next or previous section, or choose a section in the list. " +
      "Each coloured field is a matrix of real numbers of this model. Point at a cell to read its " +
      "number, or use the tab key to reach a matrix and the arrow keys to move between cells. Blue is " +
      "positive, orange is negative, and the colour of the page is zero. Each map shows which number " +
      "has the full colour. With the menu above, all signed maps of a section can have the same scale."),
    cuts.length ? text(`To stay small, this page shows ${cuts.join("; ")}.`) : [],
  ];
}
