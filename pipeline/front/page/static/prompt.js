// Sends a prompt, as it is or as a chat with tools, and shows the streamed answer: its text, reasoning and calls.

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
  const [path, body] = get("chat").open ? ["/v1/chat/completions", chat()] : ["/v1/completions", completion()];
  for await (const { data } of events(path, request({ model, ...body }, signal))) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    tokens = chunk.usage?.completion_tokens ?? tokens;
    if (!chunk.choices?.length) continue;
    const { text, delta } = chunk.choices[0];
    first ??= delta?.role ? null : performance.now(); // a chat begins with an event that has no token
    append(answer, () => show(answer, delta ?? { content: text }));
  }
  first ??= performance.now();
  const end = performance.now(), ttft = joined(seconds((first - began) / 1e3));
  const pace = tokens > 1 ? `, then ${perSecond((tokens - 1) / ((end - first) / 1e3))} tokens/s` : "";
  note(`${tokens} tokens, the first after ${ttft}${pace}`);
}

function request(asked, signal) {
  const headers = { "content-type": "application/json" };
  if (get("key").value) headers.authorization = `Bearer ${get("key").value}`;
  const body = {
    ...asked,
    max_tokens: get("max-tokens").valueAsNumber,
    temperature: get("temperature").valueAsNumber,
    stream: true,
    stream_options: { include_usage: true },
  };
  return { method: "POST", headers, body: JSON.stringify(body), signal };
}

const completion = () => ({ prompt: get("prompt").value });

function chat() {
  const messages = [{ role: "user", content: get("prompt").value }], text = get("tools").value.trim();
  if (!text) return { messages };
  try {
    return { messages, tools: JSON.parse(text), tool_choice: get("tool-choice").value };
  } catch (error) {
    throw new Error(`the tools are not JSON: ${error.message}`);
  }
}

/** What one event brings; a call begins with its name, and its arguments follow in pieces. */
function show(answer, { content, reasoning_content: reasoning, tool_calls: calls }) {
  if (reasoning) part(answer, "reasoning").append(reasoning);
  if (content) answer.append(content);
  for (const { index, function: called } of calls ?? []) {
    const shown = part(answer, "call", index);
    if (called.name) shown.append(Object.assign(document.createElement("b"), { textContent: called.name }), " ");
    shown.append(called.arguments);
  }
}

/** The last element, if it is of this kind, else a new one. */
function part(answer, kind, index = 0) {
  const last = answer.lastChild;
  if (last?.className === kind && last.dataset.index === String(index)) return last;
  const made = document.createElement("span");
  made.className = kind;
  made.dataset.index = index;
  answer.append(made);
  return made;
}

function append(answer, write) {
  const atEnd = answer.scrollHeight - answer.scrollTop - answer.clientHeight < 4;
  write();
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
