"""openvino_genai's continuous batching behind an HTTP server, which its package lacks. Runs in its environment:

python serve_genai.py FOLDER TOKENIZER.json PORT SEQUENCES CONTEXT BUDGET PROPERTIES

FOLDER is what `to_openvino` wrote; PROPERTIES, for OpenVINO's CPU plugin, are in JSON. It has as much of OpenAI's API
as the benchmark's client uses: `/v1/models`, and `/v1/completions` of token ids, greedy, as a whole or streamed. One
thread runs steps and nothing else; what a step yields is written to all clients at once, an event a token.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

BLOCK = 32  # tokens, of OpenVINO's paged attention on CPU
Pieces = list[tuple["Stream", list[int], bool]]


@dataclass(slots=True, eq=False)
class Stream:
    """One request: `put` gets its tokens as they come, and whether these were the last."""

    prompt: list[int]
    max_tokens: int
    arrived: asyncio.Queue[tuple[list[int], bool]] = field(default_factory=asyncio.Queue)


class Engine(threading.Thread):
    """Steps as long as there are requests, and sleeps otherwise. `deliver` is called in its thread."""

    def __init__(self, pipeline: Any, deliver: Callable[[Pieces], object]) -> None:
        super().__init__(daemon=True)
        self.submitted: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self._pipeline, self._deliver = pipeline, deliver
        self._live: dict[int, tuple[Stream, Any]] = {}
        self._number = 0

    def run(self) -> None:
        while True:
            while not self._live or not self.submitted.empty():
                self._admit(self.submitted.get())
            self._pipeline.step()
            self._deliver([piece for number in list(self._live) for piece in self._read(number)])

    def _admit(self, stream: Stream) -> None:
        self._number += 1
        ids = openvino.Tensor(np.array([stream.prompt], np.int64))
        settings = genai.GenerationConfig(max_new_tokens=stream.max_tokens, ignore_eos=True, eos_token_id=2)
        self._live[self._number] = stream, self._pipeline.add_request(self._number, ids, settings)

    def _read(self, number: int) -> Pieces:
        stream, handle = self._live[number]
        tokens = []
        while handle.can_read():
            for output in handle.read().values():
                tokens += output.generated_ids
        ended = handle.get_status() != genai.GenerationStatus.RUNNING
        if ended:
            del self._live[number]
        return [(stream, tokens, ended)] if tokens or ended else []


class Texts:
    """Of tokens of a byte-level vocabulary."""

    def __init__(self, file: Path) -> None:
        vocabulary = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
        letters = _bytes_of_letters()
        self._pieces = {
            token: bytes(letters[letter] for letter in text) if set(text) <= letters.keys() else text.encode()
            for text, token in vocabulary.items()
        }

    def decoder(self) -> Callable[[list[int]], str]:
        """Of one text, piece by piece."""
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        return lambda tokens: decode(b"".join(self._pieces[token] for token in tokens))


def _bytes_of_letters() -> dict[str, int]:
    """GPT-2's way to write bytes: those that can be seen as themselves, the others as letters from 256 on."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + at): byte for at, byte in enumerate(hidden)}


class Server:
    def __init__(self, pipeline: Any, texts: Texts) -> None:
        self._texts, self._loop = texts, asyncio.get_running_loop()
        self._engine = Engine(pipeline, lambda pieces: self._loop.call_soon_threadsafe(self._deliver, pieces))
        self._engine.start()

    @staticmethod
    def _deliver(pieces: Pieces) -> None:
        for stream, tokens, ended in pieces:
            stream.arrived.put_nowait((tokens, ended))

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                await self._answer(lines[0].split()[1], body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path == "/v1/models":
            _write_json(writer, {"object": "list", "data": [{"id": "peer", "object": "model"}]})
        elif path == "/v1/completions":
            await self._complete(json.loads(body), writer)
        else:
            _write_json(writer, {"error": {"message": f"no {path} here"}}, "404 Not Found")
        await writer.drain()

    async def _complete(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        stream = Stream(asked["prompt"], asked["max_tokens"])
        self._engine.submitted.put(stream)
        await (self._stream if asked.get("stream") else self._whole)(stream, writer)

    async def _whole(self, stream: Stream, writer: asyncio.StreamWriter) -> None:
        found, ended = list[int](), False
        while not ended:
            tokens, ended = await stream.arrived.get()
            found += tokens
        _write_json(writer, _event(self._texts.decoder()(found), "length") | {"usage": _usage(stream, len(found))})

    async def _stream(self, stream: Stream, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        decode, count, ended = self._texts.decoder(), 0, False
        while not ended:
            tokens, ended = await stream.arrived.get()
            for token in tokens:
                _write_event(writer, _event(decode([token]), None))
            count += len(tokens)
            await writer.drain()
        _write_event(writer, _event("", "length"))
        _write_event(writer, {"object": "text_completion", "choices": [], "usage": _usage(stream, count)})
        _write_chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")


def _event(text: str, reason: str | None) -> dict[str, Any]:
    return {
        "object": "text_completion",
        "model": "peer",
        "choices": [{"index": 0, "text": text, "finish_reason": reason}],
    }


def _usage(stream: Stream, count: int) -> dict[str, int]:
    prompt = len(stream.prompt)
    return {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}


def _write_event(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    _write_chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")


def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _write_json(writer: asyncio.StreamWriter, value: dict[str, Any], status: str = "200 OK") -> None:
    data = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)


def make_pipeline(folder: str, sequences: int, context: int, budget: int, properties: dict[str, Any]) -> Any:
    """Blocks for all sequences at their longest, and no prefix cache."""
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs, scheduler.max_num_batched_tokens = sequences, budget
    scheduler.num_kv_blocks = sequences * -(-context // BLOCK)
    scheduler.dynamic_split_fuse, scheduler.enable_prefix_caching = True, False
    return genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)


async def main() -> None:
    folder, tokenizer, port, sequences, context, budget, properties = sys.argv[1:]
    pipeline = make_pipeline(folder, int(sequences), int(context), int(budget), json.loads(properties))
    server = Server(pipeline, Texts(Path(tokenizer)))
    async with await asyncio.start_server(server.connection, "127.0.0.1", int(port), limit=1 << 22) as listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
