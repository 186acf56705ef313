"""Model-check the ring protocol: `python -m scripts.verify.rings` (or `make verify`).

Each run compiles ipc/verify/ring.pml with SPIN under some definitions and explores every interleaving within the
bounds. The protocol as it is must hold; every protocol with one step broken must be caught, in the way named
here: a model that can't fail proves nothing. Needs `spin` and a C compiler. Exit code 0: all as expected; then
ipc/verify/verified.json says of which model, which the tests compare with the one that there is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.lab.arguments import parser
from scripts.lab.paths import ROOT

MODEL = ROOT / "ipc" / "verify" / "ring.pml"
RECORD = MODEL.with_name("verified.json")
MEMORY_LIMIT_MB = 2000
DEPTH_LIMIT = 100_000

HOLDS = "holds"
ASSERTION = "assertion violated"
DEADLOCK = "invalid end state"
LIVELOCK = "acceptance cycle"
INCOMPLETE = "not explored to the end"


@dataclass(frozen=True, slots=True)
class Run:
    """One verification. `claim` is an ltl formula of the model; "" checks assertions and deadlocks."""

    name: str
    definitions: str = ""
    claim: str = ""
    expected: str = HOLDS
    slow: bool = False  # over 3 s: left to `make verify`, and pytest compares its record


@dataclass(frozen=True, slots=True)
class Outcome:
    result: str
    states: int
    seconds: float


PROTOCOL = (
    Run("one consumer", "M=7"),
    Run("one consumer, ends", "M=7", "ends"),
    Run("one consumer, delivered", "M=7", "delivered"),
    Run("one consumer, one slot", "CAP=1"),
    Run("one consumer, batches and close", "BATCH CLOSE", slow=True),
    Run("one consumer, either side closes", "CLOSE CLOSE_EARLY"),
    Run("one consumer, either side closes, ends", "CLOSE CLOSE_EARLY", "ends", slow=True),
    Run("one consumer, either side dies", "KILLS=1"),
    Run("one consumer, either side dies, ends", "KILLS=1", "ends", slow=True),
    Run("one consumer, either side dies, delivered", "KILLS=1", "delivered"),
    Run("one consumer, both die while slices expire", "KILLS=2 TIMEOUTS=1 M=4", slow=True),
    Run("one consumer, close and death", "KILLS=1 CLOSE CLOSE_EARLY M=4", slow=True),
    Run("one consumer, lost-wake counter", "TIMEOUTS=2 COUNT"),
    Run("one consumer, eventfd", "EVENTFD CLOSE"),
    Run("one consumer, revoked", "REVOKE", slow=True),
    Run("one consumer, revoked, ends", "REVOKE", "ends"),
    Run("one consumer, revoked, eventfd", "REVOKE EVENTFD M=4"),
    Run("one consumer, revoked while one dies", "REVOKE KILLS=1 M=3", slow=True),
    Run("two consumers, revoked", "N=2 M=2 CAP=1 REVOKE MERGED", slow=True),
    Run("two consumers", "N=2 M=3 MERGED"),
    Run("two consumers, ends", "N=2 M=3 MERGED", "ends", slow=True),
    Run("two consumers, delivered", "N=2 M=2 CAP=1 MERGED", "delivered"),
    Run("two consumers, one slot", "N=2 M=3 CAP=1", slow=True),
    Run("two consumers, eventfd", "N=2 M=2 CAP=1 EVENTFD"),
    Run("two consumers, one closes", "N=2 M=2 CAP=1 CLOSE CLOSE_EARLY MERGED", slow=True),
    Run("two consumers, somebody dies", "N=2 M=2 CAP=1 KILLS=1 MERGED", slow=True),
    Run("two consumers, somebody dies, ends", "N=2 M=2 CAP=1 KILLS=1 MERGED", "ends", slow=True),
    Run("two consumers, two die", "N=2 M=2 CAP=1 KILLS=2 MERGED", slow=True),
    Run("two consumers, a death ends the ring", "N=2 M=2 CAP=1 KILLS=1 DEATH_ENDS MERGED", slow=True),
    Run("two consumers, a death ends the ring, ends", "N=2 M=2 CAP=1 KILLS=1 DEATH_ENDS MERGED", "ends", slow=True),
    Run(
        "two consumers, a death ends the ring, eventfd", "N=2 M=2 CAP=1 KILLS=1 DEATH_ENDS EVENTFD MERGED", slow=True
    ),
    Run("two consumers, two deaths end the ring", "N=2 M=2 CAP=1 KILLS=2 DEATH_ENDS MERGED", slow=True),
    Run("two consumers, death or close ends the ring", "N=2 M=2 CAP=1 KILLS=1 DEATH_ENDS CLOSE MERGED", slow=True),
    Run("two consumers, lost-wake counter", "N=2 M=2 CAP=1 TIMEOUTS=1 COUNT MERGED", slow=True),
)

BROKEN = (
    Run("no fence in publish", "NO_PUBLISH_FENCE", expected=DEADLOCK),
    Run("no fence in publish, two consumers", "N=2 M=2 CAP=1 NO_PUBLISH_FENCE", expected=DEADLOCK),
    Run("no fence in publish, eventfd", "EVENTFD NO_PUBLISH_FENCE", expected=DEADLOCK),
    Run("no fence in release", "NO_RELEASE_FENCE", expected=DEADLOCK),
    Run("no fence in waits", "NO_WAIT_FENCE", expected=DEADLOCK),
    Run("space snapshot after the recheck", "SPACE_SNAPSHOT_AFTER_RECHECK", expected=DEADLOCK),
    Run("no recheck before sleeping for data", "NO_DATA_RECHECK", expected=DEADLOCK),
    Run("space counter is not bumped", "NO_SPACE_BUMP", expected=DEADLOCK),
    Run("only one sleeper is woken", "N=2 M=2 CAP=1 WAKE_ONE", expected=DEADLOCK),
    Run("close relies on its wake-up alone", "CLOSE NO_CLOSE_SLICE", expected=DEADLOCK),
    Run("revocation relies on its wake-up alone", "REVOKE NO_REVOKE_SLICE", expected=DEADLOCK),
    Run("revocation writes no eventfd", "REVOKE EVENTFD NO_REVOKE_SIGNAL", expected=DEADLOCK),
    Run("no fence in revocation, eventfd", "REVOKE EVENTFD NO_REVOKE_FENCE", expected=DEADLOCK),
    Run("published before written", "PUBLISH_BEFORE_WRITE", expected=ASSERTION),
    Run("publish without release order", "RELAXED_PUBLISH", expected=ASSERTION),
    Run("released before read", "RELEASE_BEFORE_READ", expected=ASSERTION),
    Run("slowest cursor is forgotten", "N=2 M=3 IGNORE_SECOND", expected=ASSERTION, slow=True),
    Run("dead producer's last message is not looked for", "KILLS=1 TIMEOUTS=1 NO_LAST_LOOK", expected=ASSERTION),
    Run("a dead consumer is not evicted", "N=2 M=2 CAP=1 KILLS=1 NO_EVICT", "ends", LIVELOCK),
    Run("the slowest is evicted, not the dead", "N=2 M=2 CAP=1 KILLS=1 EVICT_BLOCKER", expected=ASSERTION, slow=True),
    Run("the rule for deaths is ignored", "N=2 M=2 CAP=1 KILLS=1 DEATH_ENDS IGNORE_FLAG MERGED", expected=ASSERTION),
    Run("nobody looks for the end", "N=2 M=2 CAP=1 KILLS=1 DEATH_ENDS NO_END_LOOK MERGED", "ends", LIVELOCK),
    Run("the end relies on its wake-up alone", "N=2 M=2 CAP=1 KILLS=1 DEATH_ENDS NO_END_SLICE", expected=DEADLOCK),
    Run("the end wakes nobody, eventfd", "N=2 M=2 CAP=1 KILLS=1 DEATH_ENDS NO_END_WAKE EVENTFD", expected=DEADLOCK),
    Run("no fence in the end, eventfd", "N=2 M=2 CAP=1 KILLS=1 DEATH_ENDS NO_END_FENCE EVENTFD", expected=DEADLOCK),
    Run("lost wake-ups counted after waiting = 0", "TIMEOUTS=1 COUNT COUNT_AFTER_WAITING", expected=ASSERTION),
    Run("a lost wake-up is counted", "TIMEOUTS=1 COUNT NO_PUBLISH_FENCE", expected=ASSERTION),
)


def missing_tools() -> list[str]:
    """Names of programs that are needed and not installed."""
    tools = {"spin": shutil.which("spin"), "a C compiler": compiler()}
    return [name for name, path in tools.items() if not path]


def compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")


def build(run: Run, directory: Path) -> Path:
    """Generate and compile the verifier of one run."""
    definitions = [f"-D{word}" for word in run.definitions.split()]
    _checked(["spin", "-a", *definitions, str(MODEL)], directory)
    kind = [] if run.claim else ["-DSAFETY", "-DNOCLAIM"]
    # most of a run is the compiler's time: a mistake is found early, and -O2 searches no faster than -O1
    optimized = "-O1" if run.expected == HOLDS else "-O0"
    options = [optimized, "-w", f"-DMEMLIM={MEMORY_LIMIT_MB}", *kind]
    _checked([compiler() or "cc", *options, "-o", "pan", "pan.c"], directory)
    return directory / "pan"


def _checked(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed on {MODEL.name}:\n{done.stdout}{done.stderr}")


def judge(report: str) -> str:
    """What the verifier found; a search cut short by a limit is no proof."""
    for error in (ASSERTION, DEADLOCK, LIVELOCK):
        if f": {error}" in report:
            return error
    complete = re.search(r"errors: 0\b", report) and "Search not completed" not in report
    return HOLDS if complete and "max search depth too small" not in report else INCOMPLETE


def verify(run: Run) -> Outcome:
    """Build and execute one run in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="verify-rings-") as name:
        pan = build(run, Path(name))
        claim = ["-a", "-N", run.claim] if run.claim else []
        if run.expected == ASSERTION:
            claim.append("-E")  # the broken protocol may hang as well; that is not what this run asks
        start = time.monotonic()
        command = [str(pan), f"-m{DEPTH_LIMIT}", *claim]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
    states = re.search(r"(\d+(?:\.\d+)?(?:e\+\d+)?) states, stored", done.stdout)
    return Outcome(judge(done.stdout), int(float(states[1])) if states else 0, seconds)


def record_of(runs: Iterable[Run]) -> dict[str, str]:
    """What is claimed of them when all came out as expected: what was verified, by name."""
    model = MODEL.read_bytes()

    def digest(run: Run) -> str:
        return hashlib.sha256(f"{run.definitions}|{run.claim}|{run.expected}|".encode() + model).hexdigest()

    return {run.name: digest(run) for run in runs}


def verify_all(runs: Iterable[Run]) -> bool:
    """Print one line per run; whether all came out as expected."""
    good = True
    print(f"{'run':52} {'expected':20} {'result':20} {'states':>10} {'seconds':>8}")
    for run in runs:
        outcome = verify(run)
        as_expected = outcome.result == run.expected
        good &= as_expected
        mark = "" if as_expected else "  <-- NOT AS EXPECTED"
        line = f"{run.name:52} {run.expected:20} {outcome.result:20} {outcome.states:>10} {outcome.seconds:>8.1f}"
        print(line + mark, flush=True)
    return good


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--only", default="", help="run those whose name or definitions contain this text")
    wanted = options.parse_args().only
    if missing := missing_tools():
        print(f"not verified: {' and '.join(missing)} not found", file=sys.stderr)
        return 2
    runs = [run for run in PROTOCOL + BROKEN if wanted in f"{run.name} {run.definitions} {run.claim}"]
    if not runs:
        print(f"no run contains {wanted!r}", file=sys.stderr)
        return 2
    good = verify_all(runs)
    if good and not wanted:
        RECORD.write_text(json.dumps(record_of(runs), indent=1) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
