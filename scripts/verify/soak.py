"""Mixed load near saturation for a long time, and what has grown meanwhile: nothing should.

    python -m scripts.verify.soak --minutes 10
    python -m scripts.verify.soak --minutes 600 --set pipeline.overlap=false
    python -m scripts.verify.soak --minutes 60 --everything

40 clients for 32 rows on an emulated device: streams of known text, which are compared, clients that go away in the
middle of an answer or of a request, and a dozen kinds of bad requests, whose statuses are checked. The memory of
no process (PSS but files and segments) may grow by more than 1 % in the second half, nor the number of its threads
and descriptors; descriptors, segments and KV blocks are as at the beginning when all is over; no wake-up was lost.
Exit status 1 if anything was wrong.

With --everything there are requests of all kinds, as in chaos.py, on two replicas of --engine, and clients that go
away or are no good. In the first half a process is killed or stopped, or weights are changed, each --fault-s seconds;
in the second they are left alone, which shows what grows. The launcher, to which nothing is done, may not grow in the
first half either. Every answer is compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace

from pipeline.wire.topology import STAGES
from scripts.lab.arguments import count, positive
from scripts.verify.everything import trial
from scripts.verify.everything.trial import Wanted
from scripts.verify.survival.session import EMULATED, conclude, parser_of
from scripts.verify.survival.soaking import Outcome, Soak, run


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__, tokens=100)
    parser.add_argument("--minutes", type=positive, default=10.0)
    parser.add_argument("--clients", type=count, default=40)
    parser.add_argument("--growth", type=float, default=1.0, help="per cent of memory in the second half")
    parser.add_argument("--everything", action="store_true", help="requests of every kind, and faults")
    parser.add_argument("--engine", choices=trial.ENGINES, default="emulated", help="with --everything")
    parser.add_argument("--fault-s", type=positive, default=30.0, help="with --everything: from fault to fault")
    return parser.parse_args()


def parse(given: argparse.Namespace) -> Soak:
    seconds, growth = 60 * given.minutes, given.growth / 100
    return Soak(EMULATED, tuple(given.set), given.tokens, given.seed, seconds, given.clients, growth)


def main() -> int:
    given = arguments()
    plan = parse(given)
    if not given.everything:
        return conclude("soak", lambda: run(plan), show)
    asked = Wanted(plan.tokens, plan.seed, STAGES, extra=plan.overrides)
    with trial.trial(given.engine, asked) as ordeal:
        whole = replace(plan, config=ordeal.config, overrides=ordeal.overrides, ordeal=ordeal, fault_s=given.fault_s)
        return conclude(f"soak, {given.engine}", lambda: run(whole), show)


def show(report: Outcome) -> None:
    print("\n" + ", ".join(f"{count} {what}" for what, count in report.done.items()))
    print(f"{report.tally.tokens} tokens compared; rows in use: {statistics.mean(report.running):.1f} in the mean")
    if report.asked is not None:
        print(f"{report.faults} faults, {report.restarts} restarts")
        trial.show(report.asked)
    for name, sizes in report.memory.items():
        print(f"  {name:12} {sizes[-1] / 2**20:8.1f} MiB   {report.growth(name):+7.2%} in the second half")


if __name__ == "__main__":
    sys.exit(main())
