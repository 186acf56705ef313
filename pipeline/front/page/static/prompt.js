// Sends a prompt to /v1/completions and shows the streamed answer.

import { joined, perSecond, seconds } from "./format.js";
import { events } from "./sse.js";

const get = (id) => document.getElementById(id);

/** Makes the form work for this model. */
export function preparePrompt(model) {
  let abort = null;
  get("form").addEventListener("submit", async (submit) => {
    submit.preventDefault();
    if (abort) return;
    abort = new AbortController();
    busy(true);
    try {
      await ask(model, abort.signal);
    } catch (error) {
      fail(error);
    } finally {
      abort = null;
      busy(false);
    }
  });
  get("stop").addEventListener("click", () => abort?.abort());
  get("prompt").addEventListener("keydown", (key) => {
    if (key.key === "Enter" && (key.ctrlKey || key.metaKey)) get("form").requestSubmit();
  });
}

async function ask(model, signal) {
  const began = performance.now(), answer = get("answer");
  let first = null, tokens = 0;
  answer.textContent = "";
  note("waiting for the first token");
  for await (const { data } of events("/v1/completions", request(model, signal))) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    tokens = chunk.usage?.completion_tokens ?? tokens;
    if (!chunk.choices?.length) continue;
    first ??= performance.now();
    append(answer, chunk.choices[0].text);
  }
  const end = performance.now(), ttft = joined(seconds((first - began) / 1e3));
  const pace = tokens > 1 ? `, then ${perSecond((tokens - 1) / ((end - first) / 1e3))} tokens/s` : "";
  note(`${tokens} tokens, the first after ${ttft}${pace}`);
}

function request(model, signal) {
  const headers = { "content-type": "application/json" };
  if (get("key").value) headers.authorization = `Bearer ${get("key").value}`;
  const body = {
    model,
    prompt: get("prompt").value,
    max_tokens: get("max-tokens").valueAsNumber,
    temperature: get("temperature").valueAsNumber,
    stream: true,
    stream_options: { include_usage: true },
  };
  return { method: "POST", headers, body: JSON.stringify(body), signal };
}

function append(answer, text) {
  const atEnd = answer.scrollHeight - answer.scrollTop - answer.clientHeight < 4;
  answer.append(text);
  if (atEnd) answer.scrollTop = answer.scrollHeight;
}

function fail(error) {
  if (error.name === "AbortError") return note("stopped");
  if (error.status === 401) {
    get("key-field").hidden = false;
    get("key").focus();
  }
  return note(error instanceof TypeError ? "the connection was lost" : error.message, true);
}

function note(text, bad = false) {
  get("answer-note").textContent = text;
  get("answer-note").classList.toggle("bad", bad);
}

function busy(is) {
  get("send").disabled = is;
  get("stop").disabled = !is;
}
