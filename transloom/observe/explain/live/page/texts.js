// What a page with one stack shows of a text: how a language model continues it, or how a masked model
// fills it in, as transloom/inference/text_generator.py and mask_filler.py.

import { checkLength, MOST_PIECES } from "./computing.js";
import { headSlices, logitsSlices, readSlices } from "./forward.js";
import { continueSlices, NOT_A_NUMBER } from "./search.js";
import { mostProbable, row, rowAsMatrix, softmax, tensor } from "./tensors.js";

const SHOWN_MASK = "[MASK]";
const BETWEEN_SIDES = "|||";
const SPACE = "▁";

// `sampling`: {temperature, top_k, top_p, seed}, or null for greedy search.
export function* computeTextSlices(model, text, sampling = null) {
  const compute = { continuation: continuedSlices, filling: filledSlices }[model.family];
  return yield* compute(model, text, sampling);
}

// {text, ids, shown, given, chosen, made, stack, …}: `shown` are the texts of the pieces.
function* continuedSlices(model, text, sampling) {
  const { target: tokenizer, vocabulary: { bos_id }, steps } = model;
  const parts = tokenizer.encode(text);
  const whole = [bos_id, ...parts.map(({ id }) => id)];
  // Learned positions end with the context; of other texts, its end is read.
  const isLearned = model.config.positions === "learned";
  const prompt = isLearned ? whole : whole.slice(-model.context);
  checkLength(prompt.length, "text", isLearned ? Math.min(MOST_PIECES, model.context - steps) : MOST_PIECES);
  const uniform = sampling && model.draws[sampling.seed];
  const { chosen, draws } =
    yield* continueSlices(model, prompt, steps, sampling && { ...sampling, uniform });
  const ids = [...prompt, ...chosen.slice(0, -1)];
  const stack = yield* readSlices(model, ids);
  const logits_tv = yield* logitsSlices(model, stack.output_tm);
  const cut = whole.length - prompt.length;
  const shown = ids.map((id, n) => {
    const part = n < prompt.length && parts[n + cut - 1];
    const own = part && tokenizer.types[id] === "u" ? text.slice(part.start, part.end) : "";
    return own ? `${own} (${tokenizer.pieces[id]})` : tokenizer.pieces[id];
  });
  return {
    text, ids, stack, chosen, draws, sampling, given: prompt.length, is_cut: cut > 0,
    traced: { decoder: stack, logits_tv, probabilities_tv: softmax(logits_tv) },
    positions: stack.positions, made: tokenizer.decode(chosen), shown,
    pieces: { source: shown, target: shown, vocabulary: tokenizer.pieces },
    states_nm: rowAsMatrix(stack.output_tm, prompt.length - 1),
  };
}

function* filledSlices(model, text) {
  const { target: tokenizer, vocabulary: { bos_id, eos_id }, mask } = model;
  const sides = model.takes_pairs ? text.split(BETWEEN_SIDES) : [text];
  if (sides.length > 2) {
    throw new RangeError(`The text has ${BETWEEN_SIDES} ${sides.length - 1} times: write it once at most.`);
  }
  if (sides.length === 2) sides.splice(0, 2, sides[0].replace(/ +$/, ""), sides[1].replace(/^ +/, ""));
  const [ids, segments, positions] = [[], [], []];
  sides.forEach((side, segment) => {
    if (!side && sides.length === 2) return;
    const own = [bos_id, ...maskedIds(model, side), eos_id];
    checkLength(own.length, "text", Math.min(MOST_PIECES, model.context));
    ids.push(...own);
    segments.push(...own.map(() => segment));
    positions.push(...own.keys());
  });
  checkLength(ids.length, "text");
  const places = ids.flatMap((id, n) => (id === mask ? [n] : []));
  if (!places.length) throw new RangeError(`Write ${SHOWN_MASK} in place of a word, so that the model predicts it.`);
  const stack = yield* readSlices(model, ids, { positions, segments });
  const states = tensor([places.length, model.config.width]);
  places.forEach((place, n) => row(states, n).set(row(stack.output_tm, place)));
  const head = yield* headSlices(model, states);
  const special = new Set(model.special);
  const filled = [...ids];
  places.forEach((place, n) => { filled[place] = mostProbable(row(head.probabilities_tv, n), special); });
  if (filled.includes(-1)) throw new RangeError(NOT_A_NUMBER);
  const textOf = (some) => (keepsSpaces(tokenizer) ? tokenizer.decode(some) : tokenizer.decode(some).trim());
  const begins = filled.flatMap((id, n) => (id === bos_id ? [n] : []));
  const shown = ids.map((id) => tokenizer.pieces[id]);
  return {
    text, ids, stack, positions, places, special, ...head, is_pair: new Set(segments).size > 1, shown,
    traced: { encoder: stack, places, ...head },
    pieces: { source: shown, hidden: places.map((place) => shown[place]), vocabulary: tokenizer.pieces },
    made: begins.map((begin, n) => textOf(filled.slice(begin, begins[n + 1])))
      .join(` ${BETWEEN_SIDES} `),
  };
}

// As data_pipeline/tasks/masked_text.py: each [MASK] is one piece; where pieces include the space before
// a word, the space before [MASK] belongs to the hidden piece.
function maskedIds({ target: tokenizer, mask, special }, text) {
  const keeps = keepsSpaces(tokenizer);
  const joins = tokenizer.pieces.some((piece, id) =>
    piece.length > 1 && piece.startsWith(SPACE) && !special.includes(id));
  const runs = text.split(SHOWN_MASK);
  return runs.flatMap((run, n) => {
    const read = keeps && joins && n < runs.length - 1 ? run.replace(/ $/, "") : run;
    const ids = read.trim() || (keeps && read) ? tokenizer.encode(read).map(({ id }) => id) : [];
    const addsSpace = !keeps && n && !read.startsWith(" ") && tokenizer.pieces[ids[0]] === SPACE;
    return [...(n ? [mask] : []), ...(addsSpace ? ids.slice(1) : ids)];
  });
}

function keepsSpaces(tokenizer) {
  return tokenizer.decode(tokenizer.encode(" a ").map(({ id }) => id)) === " a ";
}
