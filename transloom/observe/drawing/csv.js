// Tables as CSV (RFC 4180): what a figure shows, as numbers with their labels.

// `rows`: arrays of texts and numbers; null is an empty cell.
export function csvOf(rows) {
  return rows.map((row) => row.map(csvCell).join(",") + "\r\n").join("");
}

function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return numberText(value);
  return /[",\r\n]|^\s|\s$/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

// The shortest text of a number; for a float32 number, the shortest one that identifies it as float32.
function numberText(value) {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf"); // as float() reads it
  if (Math.fround(value) !== value) return String(value);
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return String(short);
  }
  return String(Number(value.toPrecision(9)));
}

// Matrices with the same columns, one below the other; several have a first column with their titles.
export function tableOfPanels(panels) {
  const several = panels.length > 1;
  const [{ columns, values }] = panels;
  const head = [...(several ? ["map"] : []), "row", ...columnNames(columns, values)];
  return [head, ...panels.flatMap(({ title, rows, values }) =>
    values.map((line, r) => [...(several ? [title] : []), rows[r], ...line]))];
}

// Columns without names are the dimensions 0, 1, … of vectors.
function columnNames(columns, values) {
  return columns ?? Array.from({ length: values[0]?.length ?? 0 }, (_, n) => String(n));
}
