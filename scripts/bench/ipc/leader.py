"""The first process of a pair: `python -m scripts.bench.ipc.leader SPEC`. It starts the follower and prints JSON."""

from __future__ import annotations

import json
import sys

from scripts.bench.ipc.jobs import Figures, lead_job, verify_once
from scripts.bench.ipc.spec import PairSpec
from scripts.bench.ipc.transports import make_transport
from scripts.bench.ipc.transports.base import Transport
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
        return [_labelled(transport, spec, number, follower.pid or 0) for number in range(len(spec.jobs))]
    finally:
        transport.close()


def _labelled(transport: Transport, spec: PairSpec, number: int, follower: int) -> Figures:
    job = spec.jobs[number]
    figures = lead_job(transport, job, follower)
    return {"mode": job.mode, "access": job.access, "batch": job.batch, **figures}


def main() -> None:
    spec = PairSpec.from_text(sys.argv[1])
    try:
        answer: dict[str, object] = {"figures": lead(spec)}
    except ImportError as error:
        answer = {"skipped": f"not installed ({error})"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
