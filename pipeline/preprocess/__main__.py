"""The preprocess process: ``python -m pipeline.preprocess <descriptor>``, as the launcher starts it."""

from collections.abc import Callable

from pipeline.runtime.stage import Stage, run_stage


def load() -> Callable[[Stage], None]:
    """Imported only when the process can report what goes wrong with that."""
    from pipeline.preprocess.main import run_preprocess

    return run_preprocess


if __name__ == "__main__":
    run_stage(load)
