// The time between two tokens: the device's part, and magnified the host's, by the stage that caused it.

import { joined, percent, perSecond, seconds, write } from "./format.js";

const parts = (stages, what) => stages.map((stage) => `<span class="${stage}" id="step-${stage}-${what}"></span>`).join("");
const markup = (stages) => `
  <p class="caption"><span>One step</span><b id="step-total">–</b></p>
  <div class="bar"><span class="device" id="step-device"></span>${parts(stages, "share")}</div>
  <svg class="lens" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><polygon id="step-lens"/></svg>
  <p class="caption"><span>Host overhead: the device waits</span><b id="step-overhead">–</b></p>
  <div class="bar">${parts(stages, "part")}</div>
  <ul class="legend">
    <li class="device">device <b id="step-device-time">–</b></li>
    ${stages.map((stage) => `<li class="${stage}">${stage} <b id="step-${stage}-time">–</b></li>`).join("")}
  </ul>
  <p class="caption" id="step-uncompiled-line" hidden><span>Steps padded: their size is not compiled</span><b id="step-uncompiled">–</b></p>`;

/** Returns a function that shows metrics in the element; `stages`: names of those that the device may wait for. */
export function drawStep(element, stages) {
  element.innerHTML = markup(stages);
  const part = (name) => element.querySelector(`#step-${name}`);
  return ({ step }) => {
    const { device_s: device, overhead_s: overhead, split_s: split, idle_share: idle, uncompiled_per_s: padded } = step;
    const known = idle !== null;
    const total = known ? device + overhead : 0, share = known ? idle : 0;
    part("device").style.flexGrow = known ? 100 * (1 - share) : 0; // a sum below 1 would not fill the bar
    part("lens").setAttribute("points", known ? `${100 - 100 * share},0 100,0 100,10 0,10` : "");
    write(part("total"), known ? joined(seconds(total)) : "–");
    write(part("overhead"), known ? `${joined(seconds(overhead))} = ${percent(share)}` : "–");
    write(part("device-time"), joined(seconds(device)));
    part("uncompiled-line").hidden = !padded;
    write(part("uncompiled"), `${perSecond(padded)} per second`);
    for (const stage of stages) {
      const due = split ? split[stage] / overhead : 0;
      part(`${stage}-share`).style.flexGrow = 100 * share * due;
      part(`${stage}-part`).style.flexGrow = 100 * due;
      write(part(`${stage}-time`), joined(seconds(split ? split[stage] : null)));
    }
  };
}
