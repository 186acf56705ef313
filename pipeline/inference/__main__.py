"""The inference process: ``python -m pipeline.inference <descriptor>``, as the launcher starts it."""

import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.runtime.stage import Stage, run_stage


def load() -> Callable[[Stage], None]:
    """Imported only when the process can report what goes wrong with that.

    Modules outside of the path count for MindSpore as parts of the script: it would parse all that they import, C
    extensions too, before it compiles. An editable installation lies outside.
    """
    root = str(Path(__file__).parents[2])
    if root not in sys.path:
        sys.path.append(root)
    from pipeline.inference.main import run_inference

    return run_inference


if __name__ == "__main__":
    run_stage(load, clean_up=True)
