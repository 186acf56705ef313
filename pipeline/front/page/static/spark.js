// The last minute as a line.

const SPAN_MS = 60_000, WIDTH = 240, HEIGHT = 48;

/** Returns a function that adds a value and returns the highest one shown. */
export function drawSpark(svg) {
  const values = [];
  svg.innerHTML = `<path class="area"/><path class="line"/>`;
  const [area, line] = svg.children;
  return (value) => {
    const now = performance.now();
    values.push([now, value]);
    while (now - values[0][0] > SPAN_MS) values.shift();
    const top = Math.max(...values.map(([, v]) => v), 1e-9);
    const points = values.map(([at, v]) => `${(WIDTH * (1 - (now - at) / SPAN_MS)).toFixed(1)} ${(HEIGHT - 2 - (HEIGHT - 4) * (v / top)).toFixed(1)}`);
    line.setAttribute("d", `M${points.join("L")}`);
    area.setAttribute("d", `M${points.join("L")}V${HEIGHT}H${points[0].split(" ")[0]}Z`);
    return top;
  };
}
