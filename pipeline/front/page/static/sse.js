// Server-sent events from fetch(): unlike EventSource it can POST, send a key, and report the server's error.

/** Yields {event, data} until the server ends the stream. Throws what fetch throws, and Refusal. */
export async function* events(url, options) {
  const response = await fetch(url, options);
  if (!response.ok) throw await Refusal.of(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) yield parse(block);
    }
  } finally {
    reader.cancel().catch(() => {}); // the caller stopped reading
  }
}

export class Refusal extends Error {
  static async of(response) {
    let message = `the server answered ${response.status}`;
    try {
      message = (await response.json()).error.message;
    } catch {
      // not JSON: only the status is known
    }
    const refusal = new Refusal(message);
    refusal.status = response.status;
    return refusal;
  }
}

function parse(block) {
  const found = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) found[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
  }
  return found;
}
