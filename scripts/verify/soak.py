"""Mixed load near saturation for a long time, and what has grown meanwhile: nothing should.

    python -m scripts.verify.soak --minutes 10
    python -m scripts.verify.soak --minutes 600 --set pipeline.overlap=false

40 clients for 32 rows on an emulated device: streams of known text, which are compared, clients that go away in the
middle of an answer or of a request, and a dozen kinds of bad requests, whose statuses are checked. The memory (RSS)
of no process may grow by more than 1 % in the second half; descriptors, segments and KV blocks are as at the
beginning when all is over; no wake-up was lost. Exit status 1 if anything was wrong.
"""

from __future__ import annotations

import statistics
import sys

from scripts.lab.arguments import count, positive
from scripts.verify.survival.session import EMULATED, conclude, parser_of
from scripts.verify.survival.soaking import Outcome, Soak, run


def parse() -> Soak:
    parser = parser_of(__doc__, tokens=100)
    parser.add_argument("--minutes", type=positive, default=10.0)
    parser.add_argument("--clients", type=count, default=40)
    parser.add_argument("--growth", type=float, default=1.0, help="per cent of memory in the second half")
    given = parser.parse_args()
    seconds, growth = 60 * given.minutes, given.growth / 100
    return Soak(EMULATED, tuple(given.set), given.tokens, given.seed, seconds, given.clients, growth)


def main() -> int:
    plan = parse()
    return conclude("soak", lambda: run(plan), show)


def show(report: Outcome) -> None:
    print("\n" + ", ".join(f"{count} {what}" for what, count in report.done.items()))
    print(f"{report.tally.tokens} tokens compared; rows in use: {statistics.mean(report.running):.1f} in the mean")
    for name, sizes in report.memory.items():
        print(f"  {name:12} {sizes[-1] / 2**20:8.1f} MiB   {report.growth(name):+7.2%} in the second half")


if __name__ == "__main__":
    sys.exit(main())
