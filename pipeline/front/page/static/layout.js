// Where stages and rings are drawn: side by side where there is room, one below the other on a phone.
//
// Stages stand in the order of a request's way. A ring between neighbours is drawn between them; others go round: wide,
// above on the way forward and below on the way back; tall, to the right for the first stage's, else to the left.

const WIDE = { x: 10, pitch: 280, y: 85, width: 140, height: 170 };
const TALL = { x: 110, y: 6, pitch: 162, width: 140, height: 62 };

/** Boxes of stages and lines of rings by their keys, and the size of each picture. */
export function layOut({ stages, rings }) {
  const last = stages.length - 1, order = new Map(stages.map((stage, i) => [stage.name, i]));
  const lines = rings.map((ring) => ({ ...ring, first: order.get(ring.from), then: order.get(ring.to) }));
  const between = lines.filter((ring) => Math.abs(ring.then - ring.first) === 1);
  const round = lines.filter((ring) => !between.includes(ring)).sort((a, b) => Math.abs(a.then - a.first) - Math.abs(b.then - b.first));
  const above = round.filter((ring) => ring.then > ring.first), below = round.filter((ring) => ring.then < ring.first);
  const left = [...above, ...below].filter((ring) => ring.first && ring.then), right = round.filter((ring) => !left.includes(ring));
  const drawn = new Map();
  for (const ring of between) {
    const pair = between.some((other) => other.from === ring.to && other.to === ring.from);
    drawn.set(ring, { wide: wideBetween(ring), tall: tallBetween(ring, pair) });
  }
  above.forEach((ring, i) => drawn.set(ring, { wide: wideRound(ring, WIDE.y - 49 - 58 * i, 0) }));
  below.forEach((ring, i) => drawn.set(ring, { wide: wideRound(ring, WIDE.y + WIDE.height + 47 + 58 * i, 30 * i - 15) }));
  left.forEach((ring, i) => (drawn.get(ring).tall = tallRound(ring, 80 - 52 * i, TALL.x, -1)));
  right.forEach((ring, i) => (drawn.get(ring).tall = tallRound(ring, 312 + 52 * i, TALL.x + TALL.width, 1)));
  return {
    stages: stages.map((stage, i) => ({ ...stage,
      wide: [WIDE.x + WIDE.pitch * i, WIDE.y, WIDE.width, WIDE.height],
      tall: [TALL.x, TALL.y + TALL.pitch * i, TALL.width, TALL.height] })),
    rings: lines.map((ring) => ({ ...ring, ...drawn.get(ring) })),
    size: { wide: [WIDE.x * 2 + WIDE.pitch * last + WIDE.width, 392], tall: [360, TALL.y * 2 + TALL.pitch * last + TALL.height + 2] },
  };
}

// path: from the producer to the consumer; at: centre of the ring; label: x, y, anchor of its two lines

function wideBetween({ first, then }) {
  const forward = then > first, y = WIDE.y + (forward ? 35 : 121), way = forward ? 1 : -1;
  const from = WIDE.x + WIDE.pitch * first + (forward ? WIDE.width : 0), to = WIDE.x + WIDE.pitch * then + (forward ? 0 : WIDE.width);
  const middle = (from + to - 2 * way) / 2;
  return { path: `M${from} ${y}H${to - 2 * way}`, at: [middle, y], label: [middle, y + 40, "middle"] };
}

function tallBetween({ first, then }, pair) {
  const forward = then > first, way = forward ? 1 : -1;
  const outer = pair && Math.min(first, then) === 0; // there is room beside it: what goes round on the left begins below
  const x = TALL.x + TALL.width / 2 - way * (outer ? 35 : pair ? 48 : 0);
  const from = TALL.y + TALL.pitch * first + (forward ? TALL.height : 0), to = TALL.y + TALL.pitch * then + (forward ? 0 : TALL.height);
  const middle = (from + to - 2 * way) / 2;
  const inner = [x + 26 * way, middle + (forward ? -17 : 19), forward ? "start" : "end"];
  const beside = [x + 27, middle - 4, "start"], before = [x - 27, middle - 4, "end"];
  const label = pair && !outer ? inner : outer && forward ? before : beside;
  return { path: `M${x} ${from}V${to - 2 * way}`, at: [x, middle], label };
}

function wideRound({ first, then }, y, offset) {
  const from = WIDE.x + WIDE.pitch * first + WIDE.width / 2 + offset, to = WIDE.x + WIDE.pitch * then + WIDE.width / 2;
  const way = then > first ? 1 : -1, edge = way > 0 ? WIDE.y : WIDE.y + WIDE.height, turn = y + 14 * way;
  const path = `M${from} ${edge}V${turn}Q${from} ${y} ${from + 14 * way} ${y}H${to - 14 * way}Q${to} ${y} ${to} ${turn}V${edge - 2 * way}`;
  const middle = (from + to) / 2;
  return { path, at: [middle, y], label: [middle + 34, y - 22, "start"] };
}

function tallRound({ first, then }, x, edge, side) {
  const way = then > first ? 1 : -1, near = x - 14 * side;
  const from = TALL.y + TALL.pitch * first + (way > 0 ? 37 : 48), to = TALL.y + TALL.pitch * then + (way > 0 ? 32 : 21);
  const path = `M${edge} ${from}H${near}Q${x} ${from} ${x} ${from + 14 * way}V${to - 14 * way}Q${x} ${to} ${near} ${to}H${edge + 2 * side}`;
  const middle = (from + to) / 2;
  return { path, at: [x, middle], label: [x, middle + 35, "middle"] };
}
