"""A stage that only attaches to its rings, and says so: ``python -m tests.pipeline.launcher.small_stage <fd>``.

Each line of the file RINGSERVE_TEST_EVENTS is an event, as JSON: the stage attached to the rings of a replica's
generation, or detached from them because they were revoked. A front serves every replica. The first one asks for the
weights of a folder that a file beside it names, and all say what they are told of weights; one with a file `broken`
can't be loaded, and with those of one with a file `mute` nobody answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path

import ipc
from model.errors import ModelError
from pipeline.runtime.stage import Stage, run_stage
from pipeline.stats import Counters, FrontCounter
from pipeline.wire.rings import StageRings
from pipeline.wire.topology import INFERENCE, PREPROCESS

_LOOK_S = 0.005


def say(stage: Stage, event: str, replica: int, generation: int, **more: object) -> None:
    about = {"stage": stage.name, "event": event, "replica": replica, "generation": generation, "pid": os.getpid()}
    write({**about, **more})


def write(line: dict) -> None:
    with Path(os.environ["RINGSERVE_TEST_EVENTS"]).open("a") as file:
        file.write(json.dumps(line) + "\n")


def attach(stage: Stage, rings: StageRings, replica: int, stack: contextlib.ExitStack) -> list[ipc.SlotConsumer]:
    """Every end that is this stage's."""
    topology, read = stage.topology, []
    for spec in (spec for spec in stage.spec.rings if spec.replica == replica):
        ring, options = rings.every[spec.key], {"label": stage.name, "spin_us": 0}
        if spec in stage.spec.writes:
            stack.enter_context(ring.producer(**options))
        else:
            read.append(stack.enter_context(ring.consumer(topology.cursor(spec, stage.spec), **options)))
    return read


def serve(stage: Stage) -> None:
    def run(generation, rings):
        with contextlib.ExitStack() as stack:
            (first, *_) = attach(stage, rings, stage.replica, stack)
            say(stage, "attached", stage.replica, generation.number, weights=generation.weights)
            stage.begin(generation)
            try:
                while True:
                    first.read().release()
            finally:
                say(stage, "detached", stage.replica, generation.number)

    if stage.spec.name == INFERENCE.name and has(stage, "broken"):
        raise ModelError(f"{stage.config.pipeline.model_dir} is broken, and so is /nowhere/else")
    if stage.spec.name == PREPROCESS.name:
        stage.aboard = lambda: (10 * stage.replica, 7)
    stage.serve(run)


def has(stage: Stage, mark: str, folder: Path | None = None) -> bool:
    folder = folder or stage.config.pipeline.model_dir
    return folder is not None and (folder / mark).exists()


def ask(stage: Stage) -> None:
    """For the weights that the test wants."""
    file = Path(os.environ["RINGSERVE_TEST_EVENTS"] + ".ask")
    if stage.spec.rank == 0 and file.exists():
        call, folder = file.read_text().split(" ", 1)
        file.unlink()
        stage.control.change_weights(folder, int(call))


def serve_front(stage: Stage) -> None:
    """A lane to each replica, one look after the other."""
    counters, lanes = Counters(stage.stats, stage.name), {}
    over = threading.Event()
    stage.control.on("drain", lambda _: over.set())
    for event in ("verdict", "away", "proven"):
        stage.control.on(event, lambda fields, event=event: write({"stage": stage.name, "event": event, **fields}))
    reports: list[dict] = []

    def on_report(fields):
        reports.append(fields)
        write({"stage": stage.name, "event": "weights", **fields})

    def on_probe(fields):
        why = "it has nothing to say" if has(stage, "mute", Path(reports[-1]["change"]["folder"])) else ""
        stage.control.answered(fields["replica"], fields["generation"], why)

    stage.control.on("weights", on_report)
    stage.control.on("probe", on_probe)
    for replica in range(stage.topology.replicas):
        stage.control.waiting(replica)
    while not over.is_set():
        ask(stage)
        counters.add(FrontCounter.BEAT)
        stage.control.take()
        for replica in range(stage.topology.replicas):
            look(stage, replica, lanes)
        time.sleep(_LOOK_S)


def look(stage: Stage, replica: int, lanes: dict) -> None:
    if (generation := stage.control.newest(replica)) is not None:
        stack = contextlib.ExitStack()
        rings = StageRings.take_over(stage.spec, generation.handles, stage.shapes)
        stack.callback(rings.close)
        lanes[replica] = generation, stack, attach(stage, rings, replica, stack)
        say(stage, "attached", replica, generation.number, on_trial=generation.on_trial)
        stage.control.ready(generation)
    if replica not in lanes:
        return
    generation, stack, read = lanes[replica]
    try:
        for consumer in read:
            consumer.try_read()
    except (ipc.RingClosed, ipc.PeerDied):
        del lanes[replica], read, consumer
        stack.close()
        say(stage, "detached", replica, generation.number)
        stage.control.waiting(replica)


def load():
    return lambda stage: (serve_front if stage.spec.is_front else serve)(stage)


if __name__ == "__main__":
    run_stage(load)
