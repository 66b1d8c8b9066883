"use strict";
// The first screen of the page for a typed sentence: a second box for the sentence of the live
// section, its translation, and the figure of the flow. Until the model can run, the screen shows the
// sentence of the page, as first_screen.py wrote it.

const PIECES_IN_FLOW = 8; // `MAX_PIECES` of first_screen.py has the same value

// `typed` is the box of the live section. `shown` are the elements with results.
function firstScreen(typed) {
  const root = document.querySelector(".first-screen");
  const part = (name) => root.querySelector(`[data-first="${name}"]`);
  const box = part("sentence");
  const say = (...message) => part("state").replaceChildren(...message);

  // Show the box, and pass on to the live section what is typed.
  function start() {
    box.value = typed.value;
    box.addEventListener("input", () => {
      typed.value = box.value;
      typed.dispatchEvent(new Event("input"));
    });
    typed.addEventListener("input", () => { if (box.value !== typed.value) box.value = typed.value; });
    part("given").hidden = true;
    part("typing").hidden = false;
  }

  function fill(name, text, pieces, direction = "ltr") {
    const [said, row] = root.querySelectorAll(`[data-flow="${name}"] .about > span`);
    said.textContent = text;
    row.replaceChildren(...pieces.flatMap((piece) => [piece, " "]));
    row.dir = direction;
  }

  function show({ model, plain, own }) {
    if (box.value !== plain.sentence) box.value = plain.sentence;
    const source = plain.ids.map((_, n) => shownPiece(model, plain, n));
    const count = (noun) => `${source.length} ${noun}${source.length === 1 ? "" : "s"}`;
    fill("tokens", count("piece"), excerptOf(source).map((piece) => piece === null
      ? element("i", {}, "…") : element("bdi", { class: "token" }, visibleText(piece))),
    RIGHT_TO_LEFT.test(source.join("")) ? "rtl" : "ltr");
    fill("memory", `${count("row")} of ${model.config.width} numbers, one for each piece`, []);
    const never = [model.vocabulary.pad_id, model.vocabulary.bos_id];
    const { id, probability } = candidatesAt(plain, 0, 3).find((one) => !never.includes(one.id));
    const next = visibleText(model.target.pieces[id]);
    fill("output", "most probable next piece:", [
      element("bdi", { class: "token follows" }, next), element("b", {}, finePercent(probability))],
    RIGHT_TO_LEFT.test(next) ? "rtl" : "ltr");
    part("made").textContent = visibleText(plain.translation) || "(nothing)";
    const isOwn = own.sentence === plain.sentence && own.tag === plain.tag;
    root.querySelectorAll('[data-first="other"]').forEach((other) => { other.hidden = !isOwn; });
    say("The model is in this page: type any sentence.");
  }

  return { shown: [part("flow"), part("made")], start, show, say };
}

// The first pieces and the last one, with null for those between them.
function excerptOf(pieces) {
  return pieces.length <= PIECES_IN_FLOW ? pieces
    : [...pieces.slice(0, PIECES_IN_FLOW - 3), null, pieces.at(-1)];
}

// A percentage as in the sections that Python writes.
function finePercent(share) {
  if (share > 0 && share < 0.00005) return "< 0.01%";
  return share >= 0.99995 && share < 1 ? "> 99.99%" : `${(100 * share).toFixed(2)}%`;
}
