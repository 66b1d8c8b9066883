// Self-contained SVG files: they include their colours as #rrggbb, and refer to no other file.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";
const FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
const DEGREES = 180 / Math.PI;

// A whole file, with the ground of the page.
export function svgFile({ width, height }, palette, inside) {
  const [wide, high] = [tidy(width), tidy(height)];
  return `<svg xmlns="${SVG_NAMESPACE}" width="${wide}" height="${high}" ` +
    `viewBox="0 0 ${wide} ${high}" font-family="${FONTS}" font-size="13">` +
    `<rect width="${wide}" height="${high}" fill="${hex(palette.page)}"/>${inside}</svg>\n`;
}

// The part of a canvas context that painting a map needs; `shapes` has the painted shapes.
export class SvgContext {
  shapes = [];
  #transform = "";
  #dash = "";

  fillRect(...place) {
    this.shapes.push(rectShape(place, { fill: this.fillStyle }));
  }

  strokeRect(...place) {
    this.shapes.push(rectShape(place, { fill: "none", stroke: this.strokeStyle, "stroke-dasharray": this.#dash }));
  }

  // `y` is the middle of the text.
  fillText(text, x, y) {
    const size = parseFloat(this.font);
    const isTurned = this.direction === "rtl";
    const anchor = this.textAlign === "center" ? "middle"
      : (this.textAlign === "left") === isTurned ? "end" : "start";
    this.shapes.push(textShape(text, x, y + 0.35 * size, this.fillStyle, { "font-size": size,
      "text-anchor": anchor, direction: isTurned && "rtl", transform: this.#transform }));
  }

  setLineDash(lengths) {
    this.#dash = lengths.join(" ");
  }

  save() {} // transformations alone

  restore() {
    this.#transform = "";
  }

  translate(x, y) {
    this.#transform += `translate(${tidy(x)} ${tidy(y)})`;
  }

  rotate(angle) {
    this.#transform += `rotate(${tidy(angle * DEGREES)})`;
  }
}

export function textShape(text, x, y, fill, attributes = {}) {
  return `<text${written({ x: tidy(x), y: tidy(y), fill, ...attributes })}>${markupOf(text)}</text>`;
}

export function rectShape(place, attributes) {
  const [x, y, width, height] = place.map(tidy);
  return `<rect${written({ x, y, width, height, ...attributes })}/>`;
}

// Attributes as text, without empty ones.
function written(attributes) {
  return Object.entries(attributes).filter(([, value]) => value || value === 0)
    .map(([name, value]) => ` ${name}="${value}"`).join("");
}

// A text between tags, without the characters that XML does not allow.
function markupOf(text) {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "")
    .replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

// #rrggbb, which all programs read.
export function hex(rgb) {
  return "#" + rgb.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("");
}

function tidy(pixels) {
  return Math.round(pixels * 10) / 10;
}
