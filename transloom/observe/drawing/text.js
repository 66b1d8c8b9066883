// Texts of users and models: characters that could control or hide text are shown as escapes, as in
// foundation/untrusted_text.py.

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const CONTROLS = "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f";
const HIDDEN =
  "\\xad\\u061c\\u115f\\u1160\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164" +
  "\\u{d800}-\\u{dfff}\\ufeff\\uffa0\\ufff0-\\ufffb\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}" +
  "\\u{e0000}-\\u{e00ff}\\u{e01f0}-\\u{e0fff}";
const SELECTORS = "\\u180b-\\u180d\\u180f\\ufe00-\\ufe0f\\u{e0100}-\\u{e01ef}";
const JOINERS = "\\u200c\\u200d";
const ODD = new RegExp(`[${CONTROLS}${HIDDEN}${JOINERS}${SELECTORS}]`, "gu");
const TAKES_JOINER = new RegExp(`(?![${HIDDEN}])[\\u0590-\\u1fff\\u2070-\\u{10ffff}]$`, "u");
const TAKES_SELECTOR = new RegExp(`[^\\s${CONTROLS}${HIDDEN}${JOINERS}${SELECTORS}]$`, "u");
const JOINER = new RegExp(`^[${JOINERS}]`, "u");
const SELECTOR = new RegExp(`^[${SELECTORS}]`, "u");

// A text with escapes such as \x1b and \u202e for characters that could control or hide text.
export function visible(text) {
  return String(text).replace(ODD, (odd, place, whole) => {
    const before = whole.slice(Math.max(0, place - 2), place);
    if (JOINER.test(odd) && TAKES_JOINER.test(before)) return odd;
    if (SELECTOR.test(odd) && TAKES_SELECTOR.test(before)) return odd;
    const code = odd.codePointAt(0);
    if (code === 13) return "\\r";
    if (code < 256) return "\\x" + code.toString(16).padStart(2, "0");
    if (code < 65536) return "\\u" + code.toString(16).padStart(4, "0");
    return "\\U" + code.toString(16).padStart(8, "0");
  });
}

// The same of a text that a model wrote, which may be empty.
export const written = (text) => visible(text) || "(nothing)";

// The first letter that has a direction is written from right to left.
export function isRightToLeft(text) {
  const letter = /\p{L}/u.exec(text)?.[0];
  return letter !== undefined && RIGHT_TO_LEFT.test(letter);
}

// The same for pieces, of which those such as <s>, a tag or <mask> have no direction.
export function areRightToLeft(pieces) {
  return isRightToLeft(pieces.filter((piece) => piece && !/^<[^ ]*>$/.test(piece)).join(" "));
}
