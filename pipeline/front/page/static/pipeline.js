// The picture of the pipeline: stages, and between them the rings with the slots that are in use.

import { bytes, capacity, joined, percent, perSecond, write } from "./format.js";
import { layOut } from "./layout.js";

const RADIUS = 22;
const MOST_SLOTS = 32; // beyond that, and for bytes, a ring is one arc
const narrow = matchMedia("(max-width: 44rem)");

/** Draws the stages and rings of `about`. Returns `update`, which shows metrics in the picture and the table, and `take`,
 * which draws other stages and rings. */
export function drawPipeline(svg, body, about) {
  let parts = {}, last = null, picture = null, rows = {};
  const take = (shown) => {
    picture = layOut(shown);
    body.replaceChildren();
    rows = fillTable(body, picture.rings);
    draw();
  };
  const draw = () => {
    parts = drawAll(svg, picture, narrow.matches ? "tall" : "wide");
    if (last) update(last);
  };
  const update = (figures) => {
    last = figures;
    for (const { key } of picture.rings) {
      showRing(parts[key], figures.rings[key]);
      showRow(rows[key], figures.rings[key]);
    }
    for (const { key } of picture.stages) showStage(parts[key], figures.cpu[key], figures.states[key]);
  };
  narrow.addEventListener("change", draw);
  take(about);
  return { update, take };
}

function drawAll(svg, { stages, rings, size }, form) {
  const parts = {};
  svg.setAttribute("viewBox", `0 0 ${size[form].join(" ")}`);
  svg.setAttribute("class", form);
  svg.replaceChildren();
  const marker = make(svg, "marker", { id: "head", viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 4, markerHeight: 4, orient: "auto" });
  make(marker, "path", { d: "M0 0L8 4L0 8z", class: "head" });
  for (const ring of rings) parts[ring.key] = drawRing(svg, ring, ring[form]);
  for (const stage of stages) parts[stage.key] = drawStage(svg, stage, stage[form]);
  return parts;
}

function drawStage(svg, { name, does }, [x, y, width, height]) {
  const group = make(svg, "g", { class: `stage ${name}`, transform: `translate(${x} ${y})` });
  make(group, "rect", { width, height, rx: 8, class: "box" });
  make(group, "rect", { width: 4, height: height - 20, y: 10, rx: 2, class: "tinted" });
  const middle = height > 100 ? height / 2 - 24 : 8;
  make(group, "text", { x: 16, y: middle + 14, class: "name" }).textContent = name;
  make(group, "text", { x: 16, y: middle + 31, class: "quiet" }).textContent = does;
  const full = width - 32;
  const text = make(group, "text", height > 100 ? { x: 16, y: middle + 62, class: "quiet" } : { x: width - 8, y: middle + 14, class: "quiet", "text-anchor": "end" });
  make(group, "rect", { x: 16, y: height > 100 ? middle + 70 : height - 12, width: full, height: 4, rx: 2, class: "gauge" });
  const level = make(group, "rect", { x: 16, y: height > 100 ? middle + 70 : height - 12, width: 0, height: 4, rx: 2, class: "tinted" });
  return { text, level, full, label: height > 100 ? "CPU " : "" };
}

function showStage(part, cpu, state) {
  const trouble = state === "hung" || state === "restarting"; // "starting" stays where there is no launcher
  write(part.text, trouble || cpu === undefined ? state : `${part.label}${percent(Math.min(cpu, 9.99))}`);
  part.text.classList.toggle("bad", trouble);
  part.level.setAttribute("width", part.full * Math.min(cpu ?? 0, 1));
}

function drawRing(svg, ring, place) {
  const [x, y] = place.at, [labelX, labelY, anchor] = place.label;
  make(svg, "path", { d: place.path, class: "wire", "marker-end": "url(#head)" });
  const flow = make(svg, "path", { d: place.path, class: `flow ${ring.from}` });
  const group = make(svg, "g", { class: ring.from, transform: `translate(${x} ${y})` });
  make(group, "circle", { r: RADIUS + 6, class: "disc" });
  const slots = make(group, "g", {});
  const level = make(group, "text", { class: "level" });
  make(svg, "text", { x: labelX, y: labelY, "text-anchor": anchor, class: "label" }).textContent = ring.name;
  const note = make(svg, "text", { x: labelX, y: labelY + 14, "text-anchor": anchor, class: "label quiet" });
  return { flow, slots, level, note, arcs: [] };
}

function showRing(part, ring) {
  if (ring.unit === "slots" && ring.capacity <= MOST_SLOTS) showSlots(part, ring);
  else showArc(part, ring);
  write(part.note, ring.unit === "slots" ? `${perSecond(ring.per_s)}\u202f/s` : `${joined(bytes(ring.per_s))}/s`);
  const pace = ring.per_s < 0.5 ? 0 : ring.unit === "bytes" || ring.per_s < 200 ? (ring.per_s < 10 ? 1 : 2) : 3;
  if (part.flow.dataset.pace !== String(pace)) part.flow.dataset.pace = pace;
}

function showSlots(part, { used, capacity: slots, first }) {
  if (part.arcs.length !== slots) {
    part.slots.replaceChildren();
    part.arcs = Array.from({ length: slots }, (_, i) => make(part.slots, "path", { d: arc(i / slots, (i + 1) / slots, 0.012), class: "slot" }));
  }
  part.arcs.forEach((slot, i) => slot.classList.toggle("used", (i - first + slots) % slots < used));
  write(part.level, `${used}/${slots}`);
}

function showArc(part, { used, capacity: size, first }) {
  if (part.arcs.length !== 2) {
    part.slots.replaceChildren();
    make(part.slots, "circle", { r: RADIUS, class: "slot" });
    part.arcs = [1, 2].map(() => make(part.slots, "path", { class: "slot used" }));
  }
  // From the reader's to the writer's position. The part in use may be too small to see: the mark has a least width.
  const begin = size ? first / size : 0, length = size ? used / size : 0;
  const end = Math.min(begin + Math.max(length, 0.02), 1);
  part.arcs[0].setAttribute("d", arc(begin, end, 0));
  part.arcs[1].setAttribute("d", begin + length > 1 ? arc(0, begin + length - 1, 0) : "");
  write(part.level, percent(length));
}

/** Part of the ring, in turns from the top, clockwise. */
function arc(begin, end, gap) {
  const at = (turn) => [RADIUS * Math.sin(2 * Math.PI * turn), -RADIUS * Math.cos(2 * Math.PI * turn)].map((v) => v.toFixed(2));
  const long = end - begin - 2 * gap > 0.5 ? 1 : 0;
  const last = Math.min(end - gap, begin + 0.9999);
  return `M${at(begin + gap)}A${RADIUS} ${RADIUS} 0 ${long} 1 ${at(last)}`;
}

function fillTable(body, rings) {
  const rows = {};
  for (const ring of rings) {
    const row = body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = ring.name;
    row.append(head);
    for (const text of [ring.from, ring.to, ring.carries]) row.insertCell().textContent = text;
    rows[ring.key] = [1, 2, 3].map(() => {
      const cell = row.insertCell();
      cell.className = "n";
      return cell;
    });
  }
  return rows;
}

function showRow([used, flow, wakes], ring) {
  const slots = ring.unit === "slots";
  write(used, slots ? `${ring.used} of ${ring.capacity} slots` : `${joined(bytes(ring.used))} of ${capacity(ring.capacity)}`);
  write(flow, slots ? `${perSecond(ring.per_s)} /s` : `${joined(bytes(ring.per_s))}/s`);
  write(wakes, `${perSecond(ring.wakes_per_s)} /s`);
}

function make(parent, kind, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}
