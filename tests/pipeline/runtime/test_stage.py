"""A stage that lives through many generations: a real process, given rings by the launcher's own means."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ipc
from model.demo import DEMO_DIR
from pipeline.config import load_configuration
from pipeline.launcher.child import Phase
from pipeline.launcher.listening import Listeners
from pipeline.launcher.rings import Rings
from pipeline.launcher.signals import caught_signals
from pipeline.launcher.stage_processes import StageProcesses
from pipeline.runtime.engines import make_runner, shapes_of
from pipeline.stats import StatsPage
from pipeline.wire.step import Head, RowKind, logits_layout, step_layout
from pipeline.wire.topology import INFERENCE, ONE_OF_EACH
from tests.server.launched import CONFIG, wait_until

GENERATIONS = 50
SETTLED = 10  # from here on nothing may grow
ROOT = Path(__file__).parents[3]


def emulated(directory):
    path = directory / "server.yaml"
    path.write_text(CONFIG.replace("TOKENIZER", str(Path(DEMO_DIR) / "tokenizer.json")))
    return load_configuration(path)


def demo(_directory):
    return load_configuration(ROOT / "configs" / "demo.yaml", ["pipeline.max_rows=2", "pipeline.token_budget=16"])


class OneStage:
    """Inference alone; the test has the other ends of its rings."""

    def __init__(self, stack, config):
        runner = make_runner(config)
        self.shapes = shapes_of(config, runner)
        page = StatsPage.create()
        page.unlink()
        stack.callback(page.close)
        self.rings = Rings(ONE_OF_EACH, 0, config, self.shapes)
        stack.callback(self.rings.close)
        self.processes = StageProcesses(
            page, self.shapes, runner.facts, Listeners([], []), (), stack.enter_context(caught_signals())
        )
        stack.callback(self.processes.close)
        self.child = self.processes.start(ONE_OF_EACH.find(INFERENCE), config)

    def hear(self, event):
        """Until the stage has said so."""
        heard = []

        def listen():
            for _, message in self.processes.wait(0.02):
                assert message is not None, "the stage died"
                heard.append(message.event)
            return event in heard

        wait_until(listen, lambda: f"it said {heard}", 200)

    def one_generation(self):
        """Logits of the first step in it."""
        rings = self.rings.begin().rings
        self.rings.give(self.child, ())
        self.child.attachments[0].phase = Phase.ATTACHING
        self.hear("ready")
        logits = self.step(rings)
        self.rings.end()
        self.hear("waiting")
        return logits

    def step(self, rings):
        with (
            rings["steps"].producer() as steps,
            rings["tokens"].producer(),
            rings["logits"].consumer() as results,
        ):
            with steps.reserve() as slot:
                views = step_layout(self.shapes).views(slot)
                for column in step_layout(self.shapes).fields:
                    getattr(views, column.name)[...] = 0
                views.head[[Head.STEP, Head.ROWS, Head.CHUNK_TOKENS]] = 1
                views.input_ids[0] = 300
                views.kinds[0], views.new_tokens[0], views.wants_logits[0] = RowKind.PROMPT_END, 1, 1
                del views
            with results.read(timeout=60) as slot:
                logits = logits_layout(self.shapes).views(slot).logits[0].copy()
        return logits

    def usage(self):
        """Descriptors, segments in memory, resident KiB."""
        process = Path(f"/proc/{self.child.pid}")
        pages = int((process / "statm").read_text().split()[1])
        maps = (process / "maps").read_text().count("/dev/shm/ringserve-")
        return len(list((process / "fd").iterdir())), maps, pages * 4


@pytest.mark.parametrize("configuration", [emulated, pytest.param(demo, marks=pytest.mark.engine)])
def test_inference_keeps_nothing_of_the_rings_it_has_left(tmp_path, configuration):
    before = ipc_segments()
    with contextlib.ExitStack() as stack:
        stage = OneStage(stack, configuration(tmp_path))
        stage.hear("waiting")
        seen = [(stage.one_generation(), stage.usage()) for _ in range(GENERATIONS)]
    first = seen[0][0]
    assert np.isfinite(first).any()
    for logits, _ in seen:
        np.testing.assert_array_equal(logits, first)
    settled = [usage for _, usage in seen[SETTLED:]]
    assert {(descriptors, maps) for descriptors, maps, _ in settled} == {settled[0][:2]}
    assert settled[-1][2] - settled[0][2] < 1024, [kib for *_, kib in settled]
    assert ipc_segments() == before


def ipc_segments():
    return {path.name for path in ipc.segment.SHM_DIRECTORY.iterdir() if f"-{os.getpid()}-" in path.name}


def test_what_ends_while_it_loads_ends_without_a_word():
    """Also where a library makes something else of the exit."""
    code = (
        "import os, signal\n"
        "from pipeline.runtime import stage\n"
        "signal.signal(stage.END, stage._leave_quietly)\n"
        "try:\n    os.kill(os.getpid(), stage.END)\n    signal.pause()\n"
        "except SystemExit as error:\n    raise ImportError('in the midst of an import') from error\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
