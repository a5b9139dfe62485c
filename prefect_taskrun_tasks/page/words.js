const UNITS = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["min", 60_000],
  ["s", 1_000],
];

/** "420 ms", "1.23 s", "12.3 s", "2 min 5 s", "1 h 4 min" */
export function duration(ms) {
  if (ms < 999.5) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(ms < 9_995 ? 2 : 1)} s`;
  const largest = UNITS.findIndex(([, unit]) => Math.round(ms / 1000) * 1000 >= unit);
  return inUnits(ms, UNITS[Math.min(largest + 1, UNITS.length - 1)][1]);
}

/** Multiples of `smallest`, which is one of the units or a fraction of a second. */
function inUnits(ms, smallest) {
  let left = Math.round(ms / smallest) * smallest;
  const parts = [];
  for (const [word, unit] of UNITS) {
    if (unit === 1_000 && smallest < unit) {
      const digits = Math.ceil(-Math.log10(smallest / 1000));
      if (left || !parts.length) parts.push(`${(left / 1000).toFixed(digits)} s`);
    } else if (left >= unit) {
      parts.push(`${Math.floor(left / unit)} ${word}`);
      left %= unit;
    }
  }
  return parts.join(" ") || "0 s";
}

/** The local time of an instant. */
export function instant(ms) {
  return new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function count(number, noun, nouns = `${noun}s`) {
  return `${number.toLocaleString()} ${number === 1 ? noun : nouns}`;
}

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500];
for (const [unit, multiples] of [
  [1_000, [1, 2, 5, 10, 15, 30]],
  [60_000, [1, 2, 5, 10, 15, 30]],
  [3_600_000, [1, 2, 3, 6, 12]],
  [86_400_000, [1, 2, 7, 14, 28, 91, 182, 364]],
]) {
  STEPS.push(...multiples.map((multiple) => multiple * unit));
}

/** Marks between two moments of elapsed time: round numbers, at least `apart` milliseconds from each other. */
export function ticks(from, to, apart) {
  const largest = STEPS[STEPS.length - 1];
  const step = STEPS.find((each) => each >= apart) ?? largest * Math.ceil(apart / largest);
  const unit = step < 1000 ? step : UNITS.find(([, each]) => step % each === 0)[1];
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step)
    found.push({ at, text: at ? inUnits(at, unit) : "0" });
  return found;
}
