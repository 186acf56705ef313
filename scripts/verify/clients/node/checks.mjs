// What a client of JavaScript is asked, and how it tells: a line of JSON for each check, and one for its version.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

export const [URL, MODEL] = process.argv.slice(2);
export const QUESTION = "What is a ring buffer?";
export const TOKENS = 12;
export const LONG = ["word ".repeat(1500), "word ".repeat(9000)];
export const ABORTED = 900;

function version(name) {
  const here = createRequire(import.meta.url).resolve.paths(name)[0];
  return JSON.parse(readFileSync(`${here}/${name}/package.json`, "utf8")).version;
}

export async function run(name, checks) {
  console.log(JSON.stringify({ version: version(name) }));
  for (const [check, call] of Object.entries(checks)) {
    let why = "";
    try {
      await call();
    } catch (error) {
      why = `${error?.name}: ${error?.message} ${error?.responseBody ?? ""}`.trim().slice(0, 300);
    }
    console.log(JSON.stringify({ check, why }));
  }
  process.exit(0); // some clients keep their connections, and the process with them
}

export function same(found, expected) {
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    throw new Error(`${JSON.stringify(found)} in place of ${JSON.stringify(expected)}`);
  }
}

export async function text(stream, piece) {
  let told = "";
  for await (const part of stream) told += piece(part) ?? "";
  return told;
}

// `stop` after some of it.
export async function few(stream, stop) {
  let number = 0;
  try {
    for await (const _ of stream) if (++number === 4) stop();
  } catch (error) {
    if (number < 4) throw error;
  }
  if (number > 200) throw new Error("the stream went on");
}

export async function raises(matches, call) {
  try {
    await call();
  } catch (error) {
    if (!matches(error)) throw new Error(`another error: ${error?.name}: ${error?.message}`);
    return;
  }
  throw new Error("no error");
}

export async function tooLong(matches, call) {
  for (const prompt of LONG) await raises(matches, () => call(prompt));
}
