// Translates the typed text, one sentence per line, and shows which words are aligned.
//
// typing ──pause──▶ POST runs/…/translate (aborts the previous request) ──▶ pairs of sentences
// A request is repeated after the time in the response's Retry-After.

const PAUSE_MILLISECONDS = 250;
const LOOK_MILLISECONDS = 5000;
const MOST_SHOWN = 10;
// Languages that are written from right to left, by the first part of their code.
const FROM_THE_RIGHT = new Set(["ar", "arc", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "ug", "ur", "yi"]);

const part = (id) => document.getElementById(id);
const source = part("source");
const runs = new Map();
let timer = 0;
let asking = null;

const direction = (language) => (FROM_THE_RIGHT.has(language.toLowerCase().split(/[-_]/)[0]) ? "rtl" : "ltr");

function say(text, isProblem = false) {
  part("said").textContent = text;
  part("said").classList.toggle("problem", isProblem);
}

async function look() {
  try {
    const now = await (await fetch("runs")).json();
    for (const run of now.runs) {
      if (!runs.has(run.name)) {
        const option = new Option(`${run.name} (${run.source_language} → ${run.target_language})`, run.name);
        part("run").append(option);
      }
      runs.set(run.name, run);
    }
    const run = runs.get(part("run").value);
    const damaged = run.damaged.length ? " · a newer checkpoint is damaged" : "";
    part("standing").textContent = run.ready ? `${run.checkpoints.join(", ")}${damaged}` : "not ready";
    return true;
  } catch {
    part("standing").textContent = "the server does not answer";
    return false;
  }
}

function choose() {
  const run = runs.get(part("run").value);
  const chosen = part("n-best").value || "1";
  const counts = Array.from({length: Math.min(MOST_SHOWN, run.limits.n_best)}, (_, n) => new Option(n + 1));
  part("n-best").replaceChildren(...counts);
  part("n-best").value = chosen;
  source.lang = run.source_language;
  source.dir = direction(run.source_language);
  part("source-name").textContent = `Source (${run.source_language})`;
  part("target-name").textContent = `Translation (${run.target_language})`;
}

// Words as the alignment counts them: the text between spaces.
const words = (text) => text.trim().split(/\s+/u).filter((word) => word !== "");

function made(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// A line of words; pointing at word n calls `mark(n)`, which marks it and its aligned words.
function line(text, language, className, mark) {
  const found = words(text).map((word, number) => made("span", {
    className: "word", onpointerenter: () => mark(number), onpointerleave: () => mark(null),
  }, word));
  const paragraph = made("p", {className: `line ${className}`, lang: language, dir: direction(language)},
    ...found.flatMap((span, number) => [number ? " " : "", span]));
  return {paragraph, words: found};
}

// The arrow keys move from word to word, in the direction of writing.
function walk(item, label, sides, mark) {
  let at = null;
  item.tabIndex = 0;
  item.setAttribute("role", "group");
  item.setAttribute("aria-label", label);
  item.addEventListener("keydown", (event) => {
    const forwards = item.dataset.direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    const last = sides.target.words.length - 1;
    const step = event.key === forwards ? 1 : -1;
    at = at === null ? (step > 0 ? 0 : last) : Math.min(last, Math.max(0, at + step));
    const partners = mark("target", at);
    const names = partners.map((number) => sides.source.words[number]?.textContent).filter(Boolean);
    say(`${sides.target.words[at]?.textContent ?? ""} ← ${names.join(" ") || "no word"}`);
  });
  item.addEventListener("blur", () => {
    at = null;
    mark(null, null);
  });
}

function shownPair(sentence, translations, run) {
  const item = made("div", {});
  const [best, ...others] = translations;
  const pairs = best.alignment ?? [];
  const sides = {};
  const mark = (side, number) => {
    for (const span of [...sides.source.words, ...sides.target.words]) span.classList.remove("marked");
    if (number === null) return [];
    const here = side === "source" ? 0 : 1;
    const partners = pairs.filter((pair) => pair[here] === number).map((pair) => pair[1 - here]);
    sides[side].words[number]?.classList.add("marked");
    const other = side === "source" ? sides.target : sides.source;
    for (const partner of partners) other.words[partner]?.classList.add("marked");
    return partners;
  };
  sides.source = line(sentence, run.source_language, "source", (n) => mark("source", n));
  sides.target = line(best.text, run.target_language, "best", (n) => mark("target", n));
  item.dataset.direction = direction(run.target_language);
  walk(item, `${best.text}, from ${sentence}`, sides, mark);
  const score = (of) => made("span", {className: "score"}, of.score.toFixed(3));
  item.append(sides.source.paragraph, sides.target.paragraph, score(best));
  if (others.length) {
    item.append(made("ol", {className: "others"}, ...others.map((other) =>
      made("li", {}, made("bdi", {lang: run.target_language}, other.text), " ", score(other)))));
  }
  return made("li", {}, item);
}

async function translate() {
  asking?.abort();
  const run = runs.get(part("run").value);
  const sentences = source.value.split("\n").map((text) => text.trim()).filter((text) => text !== "");
  part("empty").hidden = sentences.length > 0;
  if (!run || sentences.length === 0) {
    part("pairs").replaceChildren();
    part("target").setAttribute("aria-busy", "false");
    say("");
    return;
  }
  const mine = (asking = new AbortController());
  part("target").setAttribute("aria-busy", "true");
  const tag = part("tag").value.trim();
  const request = {sentences, n_best: Number(part("n-best").value), alignments: true, tag: tag || null};
  try {
    const response = await fetch(`runs/${encodeURIComponent(run.name)}/translate`, {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify(request),
      signal: mine.signal,
    });
    const answer = await response.json();
    if (mine !== asking) return;
    if (response.ok) {
      const shown = answer.translations.map((found, n) => shownPair(sentences[n], found, run));
      part("pairs").replaceChildren(...shown);
      say("");
    } else {
      say(answer.problem, true);
      const seconds = Number(response.headers.get("Retry-After"));
      if (seconds) later(seconds * 1000);
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    say("The server does not answer.", true);
  }
  part("target").setAttribute("aria-busy", "false");
}

function later(milliseconds = PAUSE_MILLISECONDS) {
  clearTimeout(timer);
  timer = setTimeout(translate, milliseconds);
}

part("settings").addEventListener("submit", (event) => event.preventDefault());
source.addEventListener("input", () => later());
part("tag").addEventListener("input", () => later());
part("n-best").addEventListener("change", () => later(0));
part("run").addEventListener("change", () => {
  choose();
  look();
  later(0);
});

async function begin() {
  if (!(await look())) {
    setTimeout(begin, LOOK_MILLISECONDS);
    return;
  }
  choose();
  setInterval(look, LOOK_MILLISECONDS);
  source.focus();
  later(0);
}
begin();
