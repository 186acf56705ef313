"""Producer and consumer of a byte ring. Record i is entry i mod CYCLE of a list that both sides make from the seed:
random bytes of random length, empty ones too. The ring holds far fewer than CYCLE records, so none can be lost,
repeated or swapped unseen."""

from __future__ import annotations

import random

from ipc import ByteConsumer, ByteProducer
from scripts.verify.stress.options import WAIT_S, Options, Pace

CYCLE = 65521
_LONGEST = 120


def make_records(seed: int, most: int) -> list[bytes]:
    """One cycle, and its beginning again, so that a batch of up to `most` is always one slice."""
    source = random.Random(seed)  # noqa: S311 - a repeatable run, not a secret
    records = [source.randbytes(source.randint(0, _LONGEST)) for _ in range(CYCLE)]
    return records + records[:most]


def produce(producer: ByteProducer, options: Options, pace: Pace) -> None:
    records, sent = make_records(options.seed, options.slots), 0
    while sent < options.messages:
        at, count = sent % CYCLE, pace.batch(options.messages - sent)
        if pace.one_in(8):
            count = 1
            with producer.reserve(len(records[at]), WAIT_S) as slot:
                slot.write(records[at])
        else:
            producer.write_many(records[at : at + count], WAIT_S)
        sent += count


def consume(consumer: ByteConsumer, options: Options, pace: Pace) -> None:
    records, seen = make_records(options.seed, options.slots), 0
    while seen < options.messages:
        count = pace.batch(options.messages - seen)
        if pace.one_in(8):
            with consumer.read(WAIT_S) as slot:
                got = [bytes(memoryview(slot))]
        else:
            got = consumer.read_many(count, WAIT_S)
        _check(seen, got, records)
        seen += len(got)


def _check(first: int, got: list[bytes], records: list[bytes]) -> None:
    """Raises ValueError naming the first record that is not what was written."""
    expected = records[first % CYCLE : first % CYCLE + len(got)]
    if got != expected:
        number = next(i for i, pair in enumerate(zip(got, expected, strict=True)) if pair[0] != pair[1])
        raise ValueError(f"record {first + number}: {got[number].hex()} read, {expected[number].hex()} written")
