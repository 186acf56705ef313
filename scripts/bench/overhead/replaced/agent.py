"""The agent: a process that is told over TCP what to compute, and finds its data by the names of segments."""

from __future__ import annotations

import dataclasses
import socket
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.emulated import EmulatedRunner, EmulatedSettings
from model.runner import Bucket, StepInputs
from scripts.bench.overhead.replaced import segments as seg

Int32 = NDArray[np.int32]


def run_agent(
    port: int, names: list[str], sizes: seg.Sizes, settings: EmulatedSettings, batches: tuple[int, ...]
) -> None:
    """Until the server hangs up."""
    agent = Agent(names, sizes, settings, batches)
    with socket.create_connection(("127.0.0.1", port)) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.sendall(b"1")
        while command := server.recv(4096):
            agent.execute(command.decode())
            server.sendall(b"1")
    agent.runner.close()


class Agent:
    """`batches`: the numbers of rows that decode steps may have."""

    def __init__(
        self, names: list[str], sizes: seg.Sizes, settings: EmulatedSettings, batches: tuple[int, ...]
    ) -> None:
        buckets = {*(Bucket(batch, batch) for batch in batches), Bucket(sizes.length, 1)}
        self.runner = EmulatedRunner(
            dataclasses.replace(
                settings, buckets=tuple(sorted(buckets, key=lambda bucket: (bucket.tokens, bucket.rows)))
            )
        )
        self.runner.load()
        self._names, self._sizes = names, sizes

    def execute(self, command: str) -> None:
        segments = [SharedMemory(name=name) for name in self._names]
        try:
            if command.startswith("*"):
                self._prefill(segments, command[1:])
            else:
                self._decode(segments, command)
        finally:
            for segment in segments:
                segment.close()

    def _prefill(self, segments: list[SharedMemory], command: str) -> None:
        ids_shape, table_shape, slot_shape = map(seg.parse_shape, command.split("_"))
        row = int(seg.array(segments[seg.CURRENT_INDEX], (self._sizes.rows,))[0])
        length = int(seg.array(segments[seg.VALID_LENGTH], (self._sizes.rows,))[row])
        ids = self._padded_ids(segments, [row], [length]).reshape(ids_shape[-1])
        slots = seg.array(segments[seg.SLOT_MAPPING], slot_shape).copy()
        positions = np.arange(ids.size, dtype=np.int32)
        tables = seg.array(segments[seg.BLOCK_TABLES], table_shape).copy()
        one = np.array([length], np.int32)
        logits = self._run(StepInputs(ids, positions, slots, one, one.copy(), one - 1, tables))
        self._answer(segments, logits, [row])

    def _decode(self, segments: list[SharedMemory], command: str) -> None:
        _, batch, flags, tables_text, slots_text = command.split("_")
        rows = int(batch)
        valid = [int(flag) for flag in flags]
        lengths = seg.array(segments[seg.VALID_LENGTH], (self._sizes.rows,))[:rows].copy()
        np.copy(seg.array(segments[seg.GENERATION], (self._sizes.rows, seg.GENERATION_WORDS), np.float32))
        np.copy(seg.array(segments[seg.MASK], (self._sizes.rows,)))
        padded = self._padded_ids(segments, list(range(rows)), lengths.tolist())
        tables = seg.array(segments[seg.BLOCK_TABLES], seg.parse_shape(tables_text)).copy()
        slots = seg.array(segments[seg.SLOT_MAPPING], seg.parse_shape(slots_text)).copy()
        live = [row for row in range(rows) if valid[row]]
        order = np.array(live + [row for row in range(rows) if not valid[row]])  # padding must come last
        last = np.maximum(lengths[order] - 1, 0)
        new = np.array(valid, np.int32)[order]
        ids = padded[order, last].astype(np.int32)
        gather = np.arange(rows, dtype=np.int32)
        logits = self._run(StepInputs(ids, last, slots[order], lengths[order], new, gather, tables[order]))
        self._answer(segments, logits, live)

    def _padded_ids(self, segments: list[SharedMemory], rows: list[int], lengths: list[int]) -> Int32:
        """`[rows, full length]`: every sequence copied and padded again."""
        length = self._sizes.length
        every = seg.array(segments[seg.INPUT_IDS], (self._sizes.rows, length))
        padded = [np.pad(every[row, :used], (0, length - used)) for row, used in zip(rows, lengths, strict=True)]
        return np.stack(padded)

    def _run(self, inputs: StepInputs) -> NDArray[np.float32]:
        logits = np.zeros((inputs.rows, self.runner.facts.vocab_size), np.float32)
        self.runner.step(self.runner.bind(inputs), logits)
        return logits

    def _answer(self, segments: list[SharedMemory], logits: NDArray[Any], rows: list[int]) -> None:
        tokens = np.argmax(logits, axis=-1)
        values = []
        for place in range(len(rows)):  # one by one, as it is done there
            values.append(logits[place][tokens[place]])
        seg.array(segments[seg.OUTPUTS], (self._sizes.rows,))[rows] = tokens[: len(rows)]
        seg.array(segments[seg.LOGITS], (self._sizes.rows,), np.float32)[rows] = values
