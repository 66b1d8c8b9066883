// SentencePiece's normalisation of a text, and where each of its characters comes from.
//
// Rules such as NFKC's lie in a table that SentencePiece compiled: the length of a Darts double
// array, the array, and the texts that it leads to, each ending in a zero byte. (SentencePiece
// 0.2.3, normalizer.cc; darts.h of darts-clone tells the bits of a unit of the array.)

export const SPACE_MARK = "▁";

export class Normaliser {
  // `userDefined`: pieces that no rule may change.
  constructor(described, rules, userDefined) {
    this.described = described;
    this.userDefined = userDefined;
    this.units = new Uint32Array(0);
    this.texts = new Uint8Array(0);
    if (rules.length) {
      const length = new DataView(rules.buffer, rules.byteOffset).getUint32(0, true);
      this.units = new Uint32Array(length / 4);
      const view = new DataView(rules.buffer, rules.byteOffset + 4, length);
      for (let i = 0; i < this.units.length; i++) this.units[i] = view.getUint32(4 * i, true);
      this.texts = rules.subarray(4 + length);
    }
  }

  // {characters, origins}: the characters, and the place in the text that each begins at; one place
  // more says where the last one ends. Places count UTF-16 units.
  normalise(text) {
    const { dummy_prefix, extra_spaces, escape_spaces, space_as_suffix } = this.described;
    const space = escape_spaces ? SPACE_MARK : " ";
    const characters = [];
    const origins = [];
    const add = (character, place) => {
      characters.push(character === " " ? space : character);
      origins.push(place);
    };
    let at = 0;
    if (!extra_spaces) {
      for (let next; at < text.length; at += next.length) {
        next = this.rule(text, at);
        if (next.becomes !== " ") break;
      }
    }
    if (at === text.length) return { characters: [], origins: [at] };
    if (dummy_prefix && !space_as_suffix) add(" ", at);
    let afterSpace = !extra_spaces;
    while (at < text.length) {
      const { becomes, length } = this.rule(text, at);
      const kept = afterSpace ? becomes.replace(/^ +/, "") : becomes;
      for (const character of kept) add(character, at);
      if (kept) afterSpace = kept.endsWith(" ");
      if (extra_spaces) afterSpace = false;
      at += length;
    }
    let end = at;
    while (!extra_spaces && characters.length && characters.at(-1) === space) {
      characters.pop();
      end = origins.pop();
    }
    if (dummy_prefix && space_as_suffix) add(" ", end);
    return { characters, origins: [...origins, end] };
  }

  // What the text at this place becomes, and how much of it: the longest rule that fits.
  rule(text, at) {
    const fixed = longestPrefix(text, at, this.userDefined);
    if (fixed) return { becomes: fixed, length: fixed.length };
    const found = this.longestRule(text, at);
    if (found) return found;
    const character = String.fromCodePoint(text.codePointAt(at));
    return { becomes: character, length: character.length };
  }

  longestRule(text, start) {
    const { units } = this;
    if (!units.length) return null;
    let found = null;
    let node = offsetOf(units[0]);
    for (let at = start; at < text.length;) {
      const point = text.codePointAt(at);
      at += point > 0xffff ? 2 : 1;
      let unit = 0;
      for (const byte of utf8(point)) {
        node ^= byte;
        unit = units[node];
        if ((unit & 0x800000ff) >>> 0 !== byte) return found;
        node ^= offsetOf(unit);
      }
      if ((unit >>> 8) & 1) {
        found = { becomes: this.textAt(units[node] & 0x7fffffff), length: at - start };
      }
    }
    return found;
  }

  textAt(first) {
    return new TextDecoder().decode(this.texts.subarray(first, this.texts.indexOf(0, first)));
  }
}

// How far a node's children lie away.
function offsetOf(unit) {
  return (unit >>> 10) << ((unit & (1 << 9)) >>> 6);
}

export function utf8(point) {
  if (point < 0x80) return [point];
  const bytes = [];
  for (let shift = 0, first = 0x3f; ; shift += 6) {
    const rest = point >>> shift;
    if (shift && rest <= first) return [(~(2 * first + 1) & 0xff) | rest, ...bytes];
    bytes.unshift(0x80 | (rest & 0x3f));
    first >>>= 1;
  }
}

// The longest of the pieces that the text has at this place; "" if it has none.
export function longestPrefix(text, at, pieces) {
  let longest = "";
  for (const piece of pieces) {
    if (piece.length > longest.length && text.startsWith(piece, at)) longest = piece;
  }
  return longest;
}
