import { Ollama } from "ollama";
import { ABORTED, MODEL, QUESTION, TOKENS, URL, few, raises, run, same, text, tooLong } from "./checks.mjs";

const client = new Ollama({ host: URL });
const chat = (more = {}, content = QUESTION, model = MODEL, tokens = TOKENS) =>
  client.chat({
    model, messages: [{ role: "user", content }], options: { temperature: 0, num_predict: tokens }, ...more,
  });

await run("ollama", {
  create: async () => same((await chat()).eval_count, TOKENS),
  stream: async () => {
    const told = await text(await chat({ stream: true }), (part) => part.message.content);
    same(told, (await chat()).message.content);
  },
  usage: async () => {
    let last;
    for await (const part of await chat({ stream: true })) last = part;
    same([last.eval_count, last.done_reason], [TOKENS, "length"]);
  },
  "unknown model": () => raises((error) => error.status_code === 404, () => chat({}, QUESTION, "no")),
  "too long": () => tooLong((error) => error.status_code === 400, (prompt) => chat({}, prompt)),
  abort: async () => {
    const stream = await chat({ stream: true }, QUESTION, MODEL, ABORTED);
    await few(stream, () => stream.abort());
  },
  models: async () => same((await client.list()).models.map((model) => model.name), [`${MODEL}:latest`]),
});
