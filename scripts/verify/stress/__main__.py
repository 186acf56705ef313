"""Two-process stress of the rings: python -m scripts.verify.stress --messages 100000000 [--ring slot,byte,broadcast]

Small rings that wrap and fill, random batches, random sleeps on both sides; the reader checks every byte; no timed
wait may expire while data was there. Exit status 1 on any error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from ipc import ByteRing, RingHandle, SlotRing
from scripts.lab.paths import ROOT
from scripts.verify.stress.options import WAIT_S, Kind, Options
from scripts.verify.stress.slots import SLOT_SIZE

KINDS: tuple[Kind, ...] = ("slot", "byte", "broadcast")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Two-process stress of the rings; every byte is checked.")
    parser.add_argument("--messages", type=int, default=100_000_000, help="per ring (default: 10^8)")
    parser.add_argument(
        "--ring", type=_kinds, default=KINDS[:1], help="slot (default), byte, broadcast, or several: slot,byte"
    )
    parser.add_argument(
        "--slots", type=int, default=64, help="a power of two from 4 on; of 64 bytes each (default: 64)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of batches, sleeps and records (default: 1)")
    parser.add_argument(
        "--spin-us", type=float, help="how long a wait may spin before it sleeps (default: the rings')"
    )
    options = parser.parse_args()
    if options.messages < 1 or options.slots < 4 or options.slots & (options.slots - 1):
        parser.error("--messages: at least 1; --slots: a power of two of at least 4")
    return options


def _kinds(text: str) -> tuple[Kind, ...]:
    kinds = tuple(kind for kind in KINDS if kind in text.split(","))
    if len(kinds) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"{', '.join(KINDS)} expected, not {text!r}")
    return kinds


def make_ring(options: Options) -> SlotRing | ByteRing:
    if options.kind == "byte":
        return ByteRing.create("stress", capacity=options.slots * SLOT_SIZE)
    return SlotRing.create("stress", slots=options.slots, slot_size=SLOT_SIZE, consumers=options.consumers)


def stress(options: Options) -> bool:
    start = time.perf_counter()
    with make_ring(options) as ring:
        roles = ["producer", *map(str, range(options.consumers))]
        processes = [_start(options, ring.handle, role) for role in roles]
        try:
            ring.unlink_when_attached(WAIT_S)
            answers = [_finish(process) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        counters = [side.counters for side in (ring.snapshot().producer, *ring.snapshot().consumers)]
    return _tell(options, answers, counters, time.perf_counter() - start)


def _start(options: Options, handle: RingHandle, role: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "scripts.verify.stress.role", options.to_text(), handle.to_text(), role]
    return subprocess.Popen(command, pass_fds=handle.fds, env=environment, text=True, stdout=subprocess.PIPE)


def _finish(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    """None: it failed, and has said why on stderr."""
    out, _ = process.communicate()
    answer: dict[str, Any] | None = json.loads(out) if process.returncode == 0 else None
    return answer


def _tell(options: Options, answers: list[Any], counters: list[Any], seconds: float) -> bool:
    failed = [
        role for role, answer in zip(("producer", "consumer 0", "consumer 1"), answers, strict=False) if not answer
    ]
    lost = sum(side["lost_wakes"] for side in counters)
    parks, wakes = (sum(side[name] for side in counters) for name in ("parks", "wakes"))
    sleeps = sum(answer["sleeps"] for answer in answers if answer)
    rate = options.messages / max((answer["seconds"] for answer in answers if answer), default=seconds)
    good = not failed and not lost
    print(
        f"{options.kind}: {'ok' if good else 'FAILED'}, {options.messages:,} messages, every byte checked, "
        f"{rate:,.0f} messages/s; {sleeps:,} random sleeps, {parks:,} parks, {wakes:,} wake-ups sent, "
        f"{lost} lost; {seconds:.1f} s" + (f"; failed: {', '.join(failed)}" if failed else ""),
        flush=True,
    )
    return good


def main() -> int:
    given = parse_arguments()
    results = [stress(Options.from_arguments(given, kind)) for kind in given.ring]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
