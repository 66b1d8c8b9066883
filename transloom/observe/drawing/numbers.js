// Numbers as all pages write them: with a typographic minus sign and without −0. A share is 0 % or
// 100 % only if it is exactly that.

export function formatNumber(value, decimals = 2) {
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : String(value).replace("Infinity", "∞");
  return value.toFixed(decimals).replace(/^-(?=[0.]+$)/, "").replace("-", "−");
}

// A short number for a cell: without the zero before the point, and as a dot if it rounds to 0.
export const shortNumber = (value, digits) => (Math.abs(value) < 0.5 * 10 ** -digits ? "·"
  : formatNumber(value, digits).replace(/^(−?)0\./, "$1."));

// A number in full: with four decimals, or as a power of ten if these would be too few.
export function formatPrecise(value) {
  if (!Number.isFinite(value) || value === 0 || Math.abs(value) >= 1e-4) return formatNumber(value, 4);
  return value.toExponential(2).replaceAll("-", "−");
}

// A number in full with its sign.
export function formatSigned(value) {
  return `${value < 0 ? "−" : "+"}${formatPrecise(Math.abs(value))}`;
}

export function formatPercent(share) {
  if (share > 0 && share < 0.00005) return "< 0.01%";
  if (share >= 0.99995 && share < 1) return "> 99.99%";
  return `${formatNumber(100 * share)}%`;
}

// A whole number with commas.
export function formatCount(count) {
  return count.toLocaleString("en");
}

// A count with its noun, such as "3 pieces".
export function counted(count, noun) {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
}
