"""What the tests do with the decoder, in a process with MindSpore (tests/model/conftest.py)."""

from __future__ import annotations

from pathlib import Path

from model.errors import ModelError
from model.mindspore_runner import MindSporeRunner, MindSporeSettings
from model.runner import Bucket
from tests.model.mixed_steps import feed

STEP = Bucket(20, 3, 20)
LENGTH = 64  # of every sequence


def settings(folder, **changes) -> MindSporeSettings:
    chosen = {
        "config_path": Path(folder),
        "checkpoint_path": Path(folder),
        "num_blocks": 16,
        "max_rows": 3,
        "token_budget": 20,
        "max_length": LENGTH,
        "buckets": (STEP, Bucket(20, 3)),
        **changes,
    }
    return MindSporeSettings(**chosen)


def loaded(folder, **changes) -> MindSporeRunner:
    runner = MindSporeRunner(settings(folder, **changes))
    runner.load()
    return runner


def refusal(folder, **changes) -> str | None:
    """Why it does not become ready."""
    runner = MindSporeRunner(settings(folder, **changes))
    try:
        runner.load()
        runner.warm_up()
    except ModelError as error:
        return str(error)
    finally:
        runner.close()
    return None


def mixed(folder, tokens, **changes):
    """Logits behind every token of two sequences; see `tests.model.mixed_steps`."""
    runner = loaded(folder, **changes)
    found = feed(runner, tokens, STEP)
    runner.close()
    return found
