"""Stress of the rings: python -m scripts.verify.stress --messages 100000000 [--ring slot,byte,broadcast,evict,end]

Small rings that wrap and fill, random batches, random sleeps on both sides; the reader checks every byte; no timed
wait may expire while data was there. With evict and end one of three readers is killed, a round per 100,000 messages.
Exit status 1 on any error.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from ipc import ByteRing, SlotRing
from scripts.lab.arguments import count, parser, whole, words
from scripts.lab.workers import worker
from scripts.verify.stress.deaths import stress_deaths
from scripts.verify.stress.options import WAIT_S, Kind, Options
from scripts.verify.stress.role import Played, play
from scripts.verify.stress.slots import SLOT_SIZE

KINDS: tuple[Kind, ...] = ("slot", "byte", "broadcast", "evict", "end")
MESSAGES_PER_DEATH = 100_000


def parse_arguments() -> argparse.Namespace:
    options = parser(__doc__)
    add = options.add_argument
    add("--messages", type=count, default=100_000_000, help="per ring (default: 10^8)")
    add("--ring", type=words("ring", KINDS), default=KINDS[:1], metavar="NAMES", help=f"some of {', '.join(KINDS)}")
    add("--slots", type=whole(4), default=64, help="a power of two from 4 on; of 64 bytes each (default: 64)")
    add("--seed", type=int, default=1, help="of batches, sleeps and records (default: 1)")
    add("--spin-us", type=float, help="how long a wait may spin before it sleeps (default: the rings')")
    given = options.parse_args()
    if given.slots & (given.slots - 1):
        options.error(f"argument --slots: {given.slots} is no power of two")
    return given


def make_ring(options: Options) -> SlotRing | ByteRing:
    if options.kind == "byte":
        return ByteRing.create("stress", capacity=options.slots * SLOT_SIZE)
    return SlotRing.create("stress", slots=options.slots, slot_size=SLOT_SIZE, consumers=options.consumers)


def stress(options: Options) -> bool:
    if options.kind in {"evict", "end"}:
        return stress_deaths(options, max(1, options.messages // MESSAGES_PER_DEATH))
    start = time.perf_counter()
    with make_ring(options) as ring, contextlib.ExitStack() as stack:
        roles = range(len(options.roles))
        pipes = [stack.enter_context(worker(play, options, ring.handle, number)) for number in roles]
        ring.unlink_when_attached(WAIT_S)
        played = [_received(pipe) for pipe in pipes]
        counters = [side.counters for side in (ring.snapshot().producer, *ring.snapshot().consumers)]
    return _show(options, played, counters, time.perf_counter() - start)


def _received(pipe: Connection) -> Played | None:
    """None: it failed; why is on stderr."""
    try:
        played: Played = pipe.recv()
    except EOFError:
        return None
    return played


def _show(options: Options, played: list[Played | None], counters: list[Any], seconds: float) -> bool:
    failed = [role for role, one in zip(options.roles, played, strict=True) if one is None]
    done = [one for one in played if one is not None]
    lost, parks, wakes = (sum(side[name] for side in counters) for name in ("lost_wakes", "parks", "wakes"))
    rate = options.messages / max((one.seconds for one in done), default=seconds)
    good = not failed and not lost
    print(
        f"{options.kind}: {'ok' if good else 'FAILED'}, {options.messages:,} messages, every byte checked, "
        f"{rate:,.0f} messages/s; {sum(one.sleeps for one in done):,} random sleeps, {parks:,} parks, "
        f"{wakes:,} wake-ups sent, {lost} lost; {seconds:.1f} s"
        + (f"; failed: {', '.join(failed)}" if failed else ""),
        flush=True,
    )
    return good


def main() -> int:
    given = parse_arguments()
    results = [stress(Options(kind, given.messages, given.slots, given.seed, given.spin_us)) for kind in given.ring]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
