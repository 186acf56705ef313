"""The inference process: ``python -m pipeline.inference <descriptor>``, as the launcher starts it."""

from collections.abc import Callable

from pipeline.runtime.stage import Stage, run_stage


def load() -> Callable[[Stage], None]:
    """Imported only when the process can report what goes wrong with that."""
    from pipeline.inference.main import run_inference

    return run_inference


if __name__ == "__main__":
    run_stage(load)
