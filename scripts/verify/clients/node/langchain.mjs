import { ChatOpenAI } from "@langchain/openai";
import { ABORTED, MODEL, QUESTION, TOKENS, URL, few, raises, run, same, text, tooLong } from "./checks.mjs";

const model = (name = MODEL, maxTokens = TOKENS) =>
  new ChatOpenAI({
    model: name, apiKey: "none", temperature: 0, maxTokens, maxRetries: 0, configuration: { baseURL: `${URL}/v1` },
  });

await run("@langchain/openai", {
  create: async () => same((await model().invoke(QUESTION)).usage_metadata.output_tokens, TOKENS),
  stream: async () => {
    const told = await text(await model().stream(QUESTION), (chunk) => chunk.content);
    same(told, (await model().invoke(QUESTION)).content);
  },
  usage: async () => {
    let tokens = 0;
    for await (const chunk of await model().stream(QUESTION)) tokens += chunk.usage_metadata?.output_tokens ?? 0;
    same(tokens, TOKENS);
  },
  "unknown model": () => raises((error) => error.status === 404, () => model("no").invoke(QUESTION)),
  "too long": () =>
    tooLong((error) => error.name === "ContextOverflowError" || error.code === "context_length_exceeded",
      (prompt) => model().invoke(prompt)),
  abort: async () => {
    const control = new AbortController();
    await few(await model(MODEL, ABORTED).stream(QUESTION, { signal: control.signal }), () => control.abort());
  },
});
