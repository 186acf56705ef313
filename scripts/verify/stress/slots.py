"""Producer and consumer of a ring of 64-byte slots. Word j of message i is (8 i + j) * K mod 2^64: no two alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ipc import SlotConsumer, SlotProducer
from scripts.verify.stress.options import WAIT_S, Options, Pace

WORDS = 8
SLOT_SIZE = 8 * WORDS
_FACTOR = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1

Words = npt.NDArray[np.uint64]


class Content:
    """The words of any run of up to `most` messages."""

    def __init__(self, most: int) -> None:
        self._first = np.arange(most * WORDS, dtype=np.uint64) * np.uint64(_FACTOR)
        self._scratch = np.empty_like(self._first)

    def write(self, first: int, into: Words) -> None:
        np.add(self._first[: into.size], self._offset(first), out=into)

    def bytes_of(self, first: int, count: int) -> bytes:
        self.write(first, self._scratch[: count * WORDS])
        return self._scratch[: count * WORDS].tobytes()

    def check(self, first: int, words: Words) -> None:
        """Raises ValueError naming the first message that is not what was written."""
        expected = self._scratch[: words.size]
        self.write(first, expected)
        if not np.array_equal(words, expected):
            wrong = int(np.flatnonzero(words != expected)[0])
            raise ValueError(
                f"message {first + wrong // WORDS}, word {wrong % WORDS}: "
                f"{int(words[wrong]):#018x} read, {int(expected[wrong]):#018x} written"
            )

    @staticmethod
    def _offset(first: int) -> np.uint64:
        return np.uint64(first * WORDS * _FACTOR & _MASK)


def produce(producer: SlotProducer, options: Options, pace: Pace) -> None:
    content, sent = Content(options.slots), 0
    while sent < options.messages:
        count = pace.batch(options.messages - sent)
        if pace.one_in(8):
            producer.write_batch(content.bytes_of(sent, count), WAIT_S)
        elif pace.one_in(8):
            count = 1
            producer.write(content.bytes_of(sent, 1), WAIT_S)
        else:
            with producer.reserve_batch(count, WAIT_S) as run:
                count = run.count
                content.write(sent, np.frombuffer(memoryview(run), np.uint64))
        sent += count


def consume(consumer: SlotConsumer, options: Options, pace: Pace) -> None:
    content, seen = Content(options.slots), 0
    memory = bytearray(options.slots * SLOT_SIZE)
    while seen < options.messages:
        count = pace.batch(options.messages - seen)
        if pace.one_in(8):
            count = consumer.read_into(memoryview(memory)[: count * SLOT_SIZE], WAIT_S)
            content.check(seen, np.frombuffer(memory, np.uint64, count * WORDS))
        elif pace.one_in(8):
            count = 1
            content.check(seen, np.frombuffer(consumer.read_bytes(WAIT_S), np.uint64))
        else:
            with consumer.read_batch(count, WAIT_S) as run:
                count = run.count
                content.check(seen, np.frombuffer(memoryview(run), np.uint64))
        seen += count
