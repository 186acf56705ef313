// Where there are several replicas: how each is, and which of them the picture shows.

import { perSecond, write } from "./format.js";

/** Fills the element with a button for each, and returns a function that shows metrics in them; `choose` gets the
 * number of the one that is to be shown. */
export function drawReplicas(element, count, choose) {
  const buttons = Array.from({ length: count }, (_, number) => drawReplica(element, number));
  const press = (chosen) => buttons.forEach(({ button }, number) => button.setAttribute("aria-pressed", String(number === chosen)));
  buttons.forEach(({ button }, number) => button.addEventListener("click", () => {
    press(number);
    choose(number);
  }));
  press(0);
  element.hidden = false;
  return ({ replicas }) => replicas.forEach((replica, number) => showReplica(buttons[number], replica));
}

function drawReplica(element, number) {
  const button = document.createElement("button");
  button.type = "button";
  const [name, state, load] = ["b", "span", "span"].map((kind) => button.appendChild(document.createElement(kind)));
  name.textContent = `Replica ${number}`;
  element.append(button);
  return { button, state, load };
}

function showReplica({ button, state, load }, replica) {
  button.dataset.state = replica.state === "ok" ? "good" : replica.state === "starting" ? "wait" : "bad";
  write(state, replica.state === "ok" ? "serving" : replica.state);
  const waiting = replica.waiting ? `, ${replica.waiting} waiting` : "";
  write(load, `${replica.running} running${waiting}, ${perSecond(replica.tokens_per_s)} tokens/s`);
}
