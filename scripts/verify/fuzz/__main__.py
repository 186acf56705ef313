"""Fuzzes the front of a whole server: python -m scripts.verify.fuzz --cases 100000 [--seed 1] [--only 4711]

Malformed HTTP and JSON, and clients that misbehave. Every answer has to be well formed, no error may be the server's
(5xx), nothing may hang; and every so often the server has to come to rest with no row, block, request or descriptor
left over, and to answer a good request. At the end its memory must not have grown. Exit status 1 otherwise; a failed
case is shown, and `--only` runs it again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from scripts.lab.arguments import parser, whole
from scripts.lab.errors import ServerError
from scripts.lab.server import Server
from scripts.verify.fuzz.cases import Case, make_case
from scripts.verify.fuzz.client import Client
from scripts.verify.fuzz.server import Usage, at_rest, complaints, fuzzed_server

_AT_ONCE = 48
_ROUNDS = 20  # in how many parts the cases are run; between them the server has to come to rest
_WARM_ROUNDS = 5  # after which the front has what it needs: from there on it may not grow
# Less than 200 bytes for each of 100,000 cases, and more than what bodies of 200 KB leave behind of the heap: steps
# of some MB at the largest cases so far, where the same 5000 cases again and again add nothing.
_GROWTH_BYTES = 16 << 20
_MOST_FAILURES = 20


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--cases", type=whole(_ROUNDS), default=20_000, help="default: 20000")
    options.add_argument("--seed", type=int, default=1, help="default: 1")
    options.add_argument("--only", type=int, metavar="NUMBER", help="this case alone, shown in full")
    return options.parse_args(arguments)


class Fuzzing:
    """One run, and what it found."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server, self._seed = server, seed
        self.failures: list[str] = []
        self.client = Client(server.port, self._failed)

    def run(self, cases: int) -> None:
        """Raises ServerError when the server does not come to rest."""
        began, warm = at_rest(self._server), None
        for number in range(_ROUNDS):
            self.run_cases(range(cases * number // _ROUNDS, cases * (number + 1) // _ROUNDS))
            now = at_rest(self._server)
            print(f"{cases * (number + 1) // _ROUNDS:,} cases, {now.rss_bytes >> 10:,} KiB", flush=True)
            if number + 1 == _WARM_ROUNDS:
                warm = now
            if len(self.failures) >= _MOST_FAILURES:
                return
        self._compare(began, warm or began, at_rest(self._server))

    def run_cases(self, numbers: range) -> None:
        cases = (make_case(self._seed, number) for number in numbers)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self.client.run(cases, _AT_ONCE))

    def _compare(self, began: Usage, warm: Usage, now: Usage) -> None:
        if (
            now.descriptors > began.descriptors + 2
        ):  # connections that are kept alive, of this process, which reads metrics
            self.failures.append(f"the front has {now.descriptors} descriptors; it began with {began.descriptors}")
        if now.rss_bytes > warm.rss_bytes + _GROWTH_BYTES:
            grown = f"from {warm.rss_bytes:,} to {now.rss_bytes:,} bytes"
            self.failures.append(f"the front's memory has grown {grown}")
        if lines := complaints(self._server):
            self.failures.append("the server complained:\n" + "\n".join(lines[:10]))

    def _failed(self, case: Case, why: str) -> None:
        shown = case.data if len(case.data) <= 600 else case.data[:300] + b" ... " + case.data[-300:]
        self.failures.append(f"case {case.number} (the client {case.ending.value}): {why}\n    {shown!r}")


def main(arguments: list[str] | None = None) -> int:
    options, began = parse_arguments(arguments), time.monotonic()
    with tempfile.TemporaryDirectory() as directory, fuzzed_server(Path(directory)) as server:
        fuzzing = Fuzzing(server, options.seed)
        try:
            if options.only is None:
                fuzzing.run(options.cases)
            else:
                print(make_case(options.seed, options.only))
                fuzzing.run_cases(range(options.only, options.only + 1))
                at_rest(server)
        except ServerError as error:
            fuzzing.failures.append(str(error))
    for failure in fuzzing.failures[:_MOST_FAILURES]:
        print(failure)
    statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(fuzzing.client.statuses.items()))
    verdict = f"FAILED: {len(fuzzing.failures)}" if fuzzing.failures else "ok"
    print(f"{verdict}; answers: {statuses}; {time.monotonic() - began:.0f} s")
    return 1 if fuzzing.failures else 0


if __name__ == "__main__":
    sys.exit(main())
