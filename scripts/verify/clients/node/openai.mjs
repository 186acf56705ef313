import OpenAI, { NotFoundError } from "openai";
import { ABORTED, MODEL, QUESTION, TOKENS, URL, few, raises, run, same, text, tooLong } from "./checks.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "none", maxRetries: 0 });
const chat = (more = {}, content = QUESTION, model = MODEL) =>
  client.chat.completions.create({
    model, messages: [{ role: "user", content }], temperature: 0, max_tokens: TOKENS, ...more,
  });
const piece = (chunk) => chunk.choices[0]?.delta.content;

await run("openai", {
  create: async () => same((await chat()).usage.completion_tokens, TOKENS),
  stream: async () => same(await text(await chat({ stream: true }), piece), (await chat()).choices[0].message.content),
  usage: async () => {
    let last;
    for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) last = chunk;
    same(last.usage.completion_tokens, TOKENS);
  },
  "unknown model": () => raises((error) => error instanceof NotFoundError, () => chat({}, QUESTION, "no")),
  "too long": () => tooLong((error) => error.code === "context_length_exceeded", (prompt) => chat({}, prompt)),
  abort: async () => {
    const stream = await chat({ stream: true, max_tokens: ABORTED });
    await few(stream, () => stream.controller.abort());
  },
  models: async () => same((await client.models.list()).data.map((model) => model.id), [MODEL, "dummy"]),
});
