// The rows of the batch, the KV blocks, the queue.

import { percent, write } from "./format.js";

const MOST_CELLS = 256;
const MARKUP = `
  <p class="caption"><span>Rows of the last step</span><b id="batch-rows">–</b></p>
  <div class="rows" aria-hidden="true"></div>
  <ul class="legend">
    <li class="decode">decode <b id="batch-decode">–</b></li>
    <li class="prefill">prefill <b id="batch-prefill">–</b></li>
    <li>free <b id="batch-free">–</b></li>
    <li class="plain">new tokens <b id="batch-tokens">–</b></li>
    <li class="plain" title="More than 1 where guesses are right">tokens per row <b id="batch-per-row">–</b></li>
  </ul>
  <p class="caption"><span>KV cache</span><b id="batch-kv">–</b></p>
  <div class="bar"><span class="inference" id="batch-used"></span><span id="batch-unused"></span></div>
  <ul class="legend">
    <li class="inference">in use <b id="batch-blocks">–</b></li>
    <li class="plain">in prefix cache <b id="batch-cached">–</b></li>
    <li class="plain">preempted since start <b id="batch-preemptions">–</b></li>
  </ul>`;

/** Returns a function that shows metrics in the element, with so many rows. */
export function drawBatch(element, maxRows) {
  element.innerHTML = MARKUP;
  const part = (name) => element.querySelector(`#batch-${name}`);
  const cells = Array.from({ length: Math.min(maxRows, MOST_CELLS) }, () => document.createElement("span"));
  element.querySelector(".rows").replaceChildren(...cells);
  return ({ batch, kv, requests, tokens_per_row: perRow }) => {
    const scale = cells.length / maxRows;
    const decode = batch.decode_rows, busy = decode + batch.prefill_rows;
    cells.forEach((cell, i) => {
      const kind = i < decode * scale ? "decode" : i < busy * scale ? "prefill" : "";
      if (cell.className !== kind) cell.className = kind;
    });
    write(part("rows"), `${busy} of ${maxRows}`);
    write(part("tokens"), String(batch.tokens));
    write(part("per-row"), perRow === null ? "–" : perRow.toFixed(2));
    write(part("decode"), String(decode));
    write(part("prefill"), String(batch.prefill_rows));
    write(part("free"), String(maxRows - busy));
    part("used").style.flexGrow = kv.used;
    part("unused").style.flexGrow = Math.max(kv.total - kv.used, 0);
    write(part("kv"), percent(kv.total ? kv.used / kv.total : 0));
    write(part("blocks"), `${kv.used} of ${kv.total} blocks`);
    write(part("cached"), String(kv.cached));
    write(part("preemptions"), String(requests.preemptions));
  };
}
