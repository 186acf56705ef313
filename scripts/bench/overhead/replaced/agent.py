"""The agent: a process that is told over TCP what to compute, and finds its data by the names of segments."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.emulated import EmulatedRunner, EmulatedSettings
from model.runner import Bucket, StepInputs
from scripts.bench.overhead.replaced import segments as seg


def run_agent(
    port: int, names: list[str], sizes: seg.Sizes, settings: EmulatedSettings, batches: tuple[int, ...]
) -> None:
    """Until the server hangs up. `batches`: the numbers of rows that decode steps may have."""
    shapes = sorted({*((batch, batch) for batch in batches), (sizes.length, 1)})
    buckets = tuple(Bucket(tokens, rows) for tokens, rows in shapes)
    runner = EmulatedRunner(dataclasses.replace(settings, buckets=buckets))
    runner.load()
    with socket.create_connection(("127.0.0.1", port)) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.sendall(b"1")
        while command := server.recv(4096).decode():
            segments = seg.Segments(sizes, names)
            if command.startswith("*"):
                inputs, rows = _prefill(segments, command[1:])
            else:
                inputs, rows = _decode(segments, command)
            logits = np.zeros((inputs.bucket.rows, runner.facts.vocab_size), np.float32)
            runner.step(runner.bind(inputs), logits)
            _answer(segments, logits, rows)
            segments.close()
            server.sendall(b"1")
    runner.close()


def _prefill(segments: seg.Segments, command: str) -> tuple[StepInputs, list[int]]:
    """Inputs of a step, and the rows whose tokens it gives."""
    ids_shape, table_shape, slot_shape = map(seg.parse_shape, command.split("_"))
    row = int(segments.array(seg.CURRENT_INDEX)[0])
    length = int(segments.array(seg.VALID_LENGTH)[row])
    ids = _padded_ids(segments, [row], [length]).reshape(ids_shape[-1])
    slots = segments.array(seg.SLOT_MAPPING, slot_shape).copy()
    tables = segments.array(seg.BLOCK_TABLES, table_shape).copy()
    one = np.array([length], np.int32)
    positions = np.arange(ids.size, dtype=np.int32)
    return StepInputs(ids, positions, slots, one, one.copy(), one - 1, np.zeros_like(one), tables), [row]


def _decode(segments: seg.Segments, command: str) -> tuple[StepInputs, list[int]]:
    _, batch, flags, tables_text, slots_text = command.split("_")
    rows = int(batch)
    valid = [int(flag) for flag in flags]
    lengths = segments.array(seg.VALID_LENGTH)[:rows].copy()
    np.copy(segments.array(seg.GENERATION))
    np.copy(segments.array(seg.MASK))
    padded = _padded_ids(segments, list(range(rows)), lengths.tolist())
    tables = segments.array(seg.BLOCK_TABLES, seg.parse_shape(tables_text)).copy()
    slots = segments.array(seg.SLOT_MAPPING, seg.parse_shape(slots_text)).copy()
    live = [row for row in range(rows) if valid[row]]
    order = np.array(live + [row for row in range(rows) if not valid[row]])  # padding must come last
    last = np.maximum(lengths[order] - 1, 0)
    ids, new = padded[order, last].astype(np.int32), np.array(valid, np.int32)[order]
    last_tokens, adapters = np.arange(rows, dtype=np.int32), np.zeros(rows, np.int32)
    return StepInputs(ids, last, slots[order], lengths[order], new, last_tokens, adapters, tables[order]), live


def _padded_ids(segments: seg.Segments, rows: list[int], lengths: list[int]) -> NDArray[np.int32]:
    """`[rows, full length]`: every sequence copied and padded again."""
    every = segments.array(seg.INPUT_IDS)
    length = every.shape[1]
    return np.stack([np.pad(every[row, :used], (0, length - used)) for row, used in zip(rows, lengths, strict=True)])


def _answer(segments: seg.Segments, logits: NDArray[Any], rows: list[int]) -> None:
    tokens = np.argmax(logits, axis=-1)
    values = []
    for place in range(len(rows)):  # one by one, as it is done there
        values.append(logits[place][tokens[place]])
    segments.array(seg.OUTPUTS)[rows] = tokens[: len(rows)]
    segments.array(seg.LOGITS)[rows] = values
