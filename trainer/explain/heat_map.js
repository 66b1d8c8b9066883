"use strict";
// Heat maps: each figure holds its numbers as JSON beside a canvas, on which they are painted.
const FONT = "13px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
const SMALL_FONT = FONT.replace("13px", "11px");
const LONGEST_LABEL = 150;

function colour(name) {
  const style = getComputedStyle(document.documentElement);
  return style.getPropertyValue("--" + name).trim().split(/\s+/).map(Number);
}

const css = (rgb) => `rgb(${rgb.map(Math.round).join(" ")})`;
const between = (from, to, share) => from.map((part, i) => part + (to[i] - part) * share);

// The one of two colours that stands out more.
function readable(ground, ...colours) {
  const light = ([red, green, blue]) => 0.3 * red + 0.6 * green + 0.1 * blue;
  const contrast = (rgb) => Math.abs(light(rgb) - light(ground));
  return contrast(colours[0]) >= contrast(colours[1]) ? colours[0] : colours[1];
}

function numbersOf(figure) {
  figure.map ??= JSON.parse(figure.querySelector("script").textContent);
  return figure.map;
}

function shortened(context, text) {
  if (context.measureText(text).width <= LONGEST_LABEL) return text;
  while (text.length > 1 && context.measureText(text + "…").width > LONGEST_LABEL) {
    text = text.slice(0, -1);
  }
  return text + "…";
}

// Where everything stands, in CSS pixels.
function layoutOf(context, { values, rows, columns }, signed) {
  context.font = FONT;
  const width = (texts) => Math.max(0, ...texts.map((t) => context.measureText(t).width));
  const rowLabels = rows.map((text) => shortened(context, text));
  const columnLabels = (columns ?? []).map((text) => shortened(context, text));
  const count = Math.max(1, values[0].length);
  const square = count <= 10 ? 36 : count <= 20 ? 26 : 17;
  const cell = columns
    ? { width: square, height: Math.min(square, 30) }
    : { width: Math.max(3, Math.min(7, Math.floor(760 / count))), height: 20 };
  const slant = width(columnLabels) * Math.SQRT1_2;
  // How far the slanted labels reach over the right edge.
  const over = Math.max(0, ...columnLabels.map((label, column) =>
    width([label]) * Math.SQRT1_2 + 8 - (count - column - 0.5) * cell.width));
  const left = width(rowLabels) + 8;
  const top = columns ? slant + 14 : 2;
  return {
    rowLabels, columnLabels, cell, left, top,
    width: left + count * cell.width + over + 2,
    height: top + values.length * cell.height + 2,
    writesNumbers: columns !== null && square >= 26 && (!signed || square >= 36),
  };
}

function paint(figure) {
  const map = numbersOf(figure);
  const signed = figure.dataset.colours === "signed";
  const canvas = figure.querySelector("canvas");
  const context = canvas.getContext("2d");
  const layout = (figure.layout = layoutOf(context, map, signed));
  const { cell, left, top } = layout;
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.ceil(layout.width * density);
  canvas.height = Math.ceil(layout.height * density);
  canvas.style.width = layout.width + "px";
  canvas.style.height = layout.height + "px";
  context.scale(density, density);

  const [zero, line, text, quiet] = ["page", "line", "text", "quiet"].map(colour);
  const [positive, negative] = [colour("positive"), colour("negative")];
  const flat = map.values.flat().filter((value) => value !== null);
  const greatest = signed ? Math.max(1e-9, ...flat.map(Math.abs)) : 1;

  context.font = FONT;
  context.textBaseline = "middle";
  context.textAlign = "right";
  context.fillStyle = css(text);
  layout.rowLabels.forEach((label, row) =>
    context.fillText(label, left - 6, top + (row + 0.5) * cell.height));
  context.textAlign = "left";
  layout.columnLabels.forEach((label, column) => {
    context.save();
    context.translate(left + (column + 0.5) * cell.width, top - 6);
    context.rotate(-Math.PI / 4);
    context.fillText(label, 0, 0);
    context.restore();
  });

  context.textAlign = "center";
  context.font = SMALL_FONT;
  map.values.forEach((values, row) => values.forEach((value, column) => {
    const [x, y] = [left + column * cell.width, top + row * cell.height];
    const share = value === null ? 0 : Math.min(1, Math.abs(value) / greatest);
    const fill = value === null ? line : between(zero, value < 0 ? negative : positive, share);
    context.fillStyle = css(fill);
    // A pixel is left free between labelled cells, and between the rows of vectors.
    context.fillRect(x, y, cell.width - (map.columns ? 1 : 0), cell.height - 1);
    if (layout.writesNumbers && value !== null) {
      context.fillStyle = css(share < 0.02 && !signed ? quiet : readable(fill, text, zero));
      const written = signed ? value.toFixed(1) : value >= 0.995 ? "1" : value.toFixed(2).slice(1);
      context.fillText(written.replace("-", "−"), x + cell.width / 2, y + cell.height / 2);
    }
  }));
  context.strokeStyle = css(line);
  context.strokeRect(left - 0.5, top - 0.5, map.values[0].length * cell.width + 1,
    map.values.length * cell.height + 1);
}

function paintAll(within) {
  within.querySelectorAll("figure.map").forEach(paint);
}

// The number under the pointer.
{
  const tip = document.getElementById("tip");

  function pointed(event) {
    const figure = event.target.closest?.("figure.map");
    tip.hidden = true;
    if (!figure?.layout || event.target.tagName !== "CANVAS") return;
    const { left, top, cell } = figure.layout;
    const { values, rows, columns } = numbersOf(figure);
    const row = Math.floor((event.offsetY - top) / cell.height);
    const column = Math.floor((event.offsetX - left) / cell.width);
    const value = values[row]?.[column];
    if (value === undefined) return;
    const where = columns ? `${rows[row]} → ${columns[column]}` : `${rows[row]}, dimension ${column}`;
    const shown = value === null ? "masked" : String(value).replace("-", "−");
    tip.textContent = `${where}: ${shown}`;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = Math.min(event.clientX + 14, innerWidth - width - 8) + "px";
    tip.style.top = Math.max(4, event.clientY - height - 10) + "px";
  }

  document.addEventListener("pointermove", pointed);
  document.addEventListener("pointerdown", pointed);
  document.addEventListener("scroll", () => { tip.hidden = true; });
}
