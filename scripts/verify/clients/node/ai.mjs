// Vercel's AI SDK, over OpenAI's API and over Ollama's.
import { generateObject, generateText, jsonSchema, streamText } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOllama } from "ollama-ai-provider-v2";
import { ABORTED, MODEL, QUESTION, TOKENS, URL, few, raises, run, same, text, tooLong } from "./checks.mjs";

const openai = createOpenAICompatible({ name: "ringserve", baseURL: `${URL}/v1`, apiKey: "none", includeUsage: true, supportsStructuredOutputs: true });
const ollama = createOllama({ baseURL: `${URL}/api` });
// The provider for Ollama sends temperature and the like beside `options`, where Ollama ignores them and RingServe
// refuses them: they go into `options`.
const options = (of, more = {}, tokens = TOKENS) => {
  const inside = { ollama: { options: { temperature: 0, num_predict: tokens } } };
  const own = of === ollama ? { providerOptions: inside } : { temperature: 0, maxOutputTokens: tokens };
  return { model: of(MODEL), prompt: QUESTION, maxRetries: 0, ...own, ...more };
};
const schema = jsonSchema({
  type: "object",
  properties: { level: { enum: ["low", "high"] }, value: { type: "integer", minimum: 0, maximum: 99 } },
  required: ["level", "value"],
  additionalProperties: false,
});
const each = async (check) => {
  for (const of of [openai, ollama]) await check(of);
};
const errors = (kind) => (error) => error.name === "AI_APICallError" && error.statusCode === kind;

await run("ai", {
  create: () => each(async (of) => same((await generateText(options(of))).usage.outputTokens, TOKENS)),
  stream: () =>
    each(async (of) => {
      const told = await text(streamText(options(of)).textStream, (piece) => piece);
      same(told, (await generateText(options(of))).text);
    }),
  usage: () =>
    each(async (of) => {
      const answer = streamText(options(of));
      await text(answer.textStream, () => "");
      same((await answer.usage).outputTokens, TOKENS);
    }),
  structured: () =>
    each(async (of) => {
      const { object } = await generateObject({ ...options(of, {}, 200), schema });
      if (!["low", "high"].includes(object.level) || !Number.isInteger(object.value)) throw new Error(JSON.stringify(object));
    }),
  "unknown model": () => each((of) => raises(errors(404), () => generateText(options(of, { model: of("no") })))),
  "too long": () => each((of) => tooLong(errors(400), (prompt) => generateText(options(of, { prompt })))),
  abort: () =>
    each(async (of) => {
      const control = new AbortController();
      const more = { abortSignal: control.signal };
      await few(streamText(options(of, more, ABORTED)).textStream, () => control.abort());
    }),
});
