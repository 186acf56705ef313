"""The two processes of a pair: `python -m scripts.bench.ipc.pair SPEC` leads: it starts `… SPEC TICKET`, which
follows, and prints JSON."""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from typing import Any

from scripts.bench.ipc.jobs import Figures, follow_job, lead_job, verify_once
from scripts.bench.ipc.spec import PairSpec
from scripts.bench.ipc.transports import make_transport
from scripts.lab.clock import pin


def lead(spec: PairSpec) -> list[Figures]:
    transport = make_transport(spec)
    transport.prepare()
    try:
        follower = transport.start()
        if spec.pinned:
            pin(0)  # not before: the follower would inherit it
        transport.connect()
        verify_once(transport, spec, leads=True)
        return [lead_job(transport, job, follower.pid or 0) for job in spec.jobs]
    finally:
        transport.close()


def follow(spec: PairSpec, ticket: Any) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: some transports would wait for ever
    if spec.pinned:
        pin(1)
    transport = make_transport(spec)
    transport.attach(ticket)
    verify_once(transport, spec, leads=False)
    for job in spec.jobs:
        follow_job(transport, job)


def main(spec: PairSpec) -> None:
    try:
        answer: dict[str, object] = {"figures": lead(spec)}
    except ImportError as error:
        answer = {"skipped": f"not installed ({error})"}
    print(json.dumps(answer))


if __name__ == "__main__":
    given = PairSpec.from_text(sys.argv[1])
    if len(sys.argv) > 2:
        follow(given, sys.argv[2])
    else:
        main(given)
