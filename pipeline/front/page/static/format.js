// Numbers with units, three digits where they matter.

const THIN = "\u202f";
const NOTHING = "–";

function digits(value) {
  if (value >= 99.95) return Math.round(value).toLocaleString("en").replaceAll(",", THIN);
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}

/** Seconds as [number, unit]; null: nothing was observed. */
export function seconds(value) {
  if (value === null) return [NOTHING, ""];
  if (value === 0) return ["0", "µs"];
  if (value < 0.9995e-3) return [digits(value * 1e6), "µs"];
  if (value < 0.9995) return [digits(value * 1e3), "ms"];
  return [digits(value), "s"];
}

export function perSecond(value) {
  return value ? digits(value) : "0";
}

export function bytes(value) {
  if (value < 1000) return [Math.round(value).toString(), "B"];
  if (value < 999_500) return [digits(value / 1e3), "kB"];
  return [digits(value / 1e6), "MB"];
}

/** A capacity, which is a power of two. */
export function capacity(value) {
  if (value < 1024) return `${value}${THIN}B`;
  return value < 1 << 20 ? `${value >> 10}${THIN}KiB` : `${value >> 20}${THIN}MiB`;
}

export function percent(share) {
  if (share === 0 || share >= 0.9995) return `${Math.round(share * 100)}${THIN}%`;
  return `${(share * 100).toFixed(1)}${THIN}%`;
}

export const joined = ([number, unit]) => (unit ? `${number}${THIN}${unit}` : number);

/** Show a number in an element, its unit smaller. */
export function show(element, [number, unit]) {
  if (element.dataset.shown === number + unit) return;
  element.dataset.shown = number + unit;
  const small = document.createElement("span");
  small.className = "unit";
  small.textContent = unit ? `${THIN}${unit}` : "";
  element.replaceChildren(number, small);
}

/** Change text only where it is another. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
