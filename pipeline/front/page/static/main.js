// Listens to /live while the page is visible, and passes the metrics to the functions that draw them.

import { drawBatch } from "./batch.js";
import { joined, perSecond, seconds, show, write } from "./format.js";
import { drawPipeline } from "./pipeline.js";
import { preparePrompt } from "./prompt.js";
import { drawReplicas } from "./replicas.js";
import { drawSpark } from "./spark.js";
import { events } from "./sse.js";
import { drawStep } from "./step.js";

const RETRY_MS = 2000;
const get = (id) => document.getElementById(id);

const spark = drawSpark(get("spark"));
const drawn = [showFigures];
let prepared = false, listening = null;

function showAbout(about) {
  write(get("about"), [about.runner || about.model, `up to ${about.max_length.toLocaleString("en")} tokens`, `v${about.version}`].join(" · "));
  document.title = `RingServe · ${about.model}`;
  if (prepared) return;
  prepared = true;
  const pipeline = drawPipeline(get("pipeline"), get("rings"), about);
  drawn.push(pipeline.update);
  const { replicas } = about;
  if (replicas) drawn.push(drawReplicas(get("replicas"), replicas.length, (number) => pipeline.take(replicas[number])));
  drawn.push(drawStep(get("step"), about.stages.slice(1).map(({ name }) => name))); // all but the front
  drawn.push(drawBatch(get("batch"), about.max_rows));
  get("running").dataset.rows = about.max_rows;
  get("max-tokens").max = about.max_length;
  get("form").hidden = !about.serves;
  get("elsewhere").hidden = about.serves;
  preparePrompt(about.model);
}

function showFigures(figures) {
  const state = get("state");
  state.dataset.state = figures.ready ? "good" : "wait";
  const restarts = figures.restarts ? `, stage restarts: ${figures.restarts}` : "";
  write(state, (figures.ready ? "serving" : "not ready") + restarts);
  show(get("tokens"), [perSecond(figures.tokens_per_s), ""]);
  write(get("tokens-note"), `peak of 60 s: ${perSecond(spark(figures.tokens_per_s))}`);
  showTime("ttft", figures.ttft_s, figures.ttft_p99_below_s);
  showTime("itl", figures.itl_s, figures.itl_p99_below_s);
  showTime("overhead", figures.step.overhead_s, figures.step.overhead_p99_below_s);
  show(get("running"), [String(figures.batch.running), `of ${get("running").dataset.rows} rows`]);
  const [waiting, coming] = get("requests-note").children;
  write(waiting, `${figures.requests.waiting} waiting`);
  const calls = figures.requests.calls ? `, ${figures.requests.calls} tool calls so far` : "";
  write(coming, `${perSecond(figures.requests_per_s)} new per second${calls}`);
}

function showTime(id, mean, below) {
  show(get(id), seconds(mean));
  write(get(`${id}-note`).lastElementChild, below === null ? "" : `p99 ≤ ${joined(seconds(below)).replace(/\.0+(?=\D)/, "")}`);
}

async function listen(signal) {
  for await (const { event, data } of events("/live", { signal })) {
    const content = JSON.parse(data);
    if (event === "about") showAbout(content);
    if (event === "figures") for (const draw of drawn) draw(content);
  }
  throw new Error("the server closed the stream");
}

async function keepListening() {
  while (!document.hidden) {
    listening = new AbortController();
    try {
      await listen(listening.signal);
    } catch (error) {
      if (error.name === "AbortError") continue;
      get("state").dataset.state = "bad";
      write(get("state"), error.status ? error.message : "no connection, reconnecting");
    }
    await new Promise((done) => setTimeout(done, RETRY_MS));
  }
  listening = null;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) listening?.abort();
  else if (!listening) keepListening();
});
keepListening();
