"""The second process of a pair: `python -m scripts.bench.ipc.follower SPEC TICKET`."""

from __future__ import annotations

import ctypes
import signal
import sys
from typing import Any

from scripts.bench.ipc.jobs import follow_job, verify_once
from scripts.bench.ipc.spec import PairSpec
from scripts.bench.ipc.transports import make_transport
from scripts.lab.clock import pin


def follow(spec: PairSpec, ticket: str, ends: Any = None) -> None:
    _die_with_the_leader()
    if spec.pinned:
        pin(1)
    transport = make_transport(spec)
    if ends is None:
        transport.attach(ticket)
    else:
        transport.adopt(ends)  # type: ignore[attr-defined]
    verify_once(transport, spec, leads=False)
    for job in spec.jobs:
        follow_job(transport, job)


def _die_with_the_leader() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: some transports would wait for ever


if __name__ == "__main__":
    follow(PairSpec.from_text(sys.argv[1]), sys.argv[2])
