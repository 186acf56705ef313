"""The front process: ``python -m pipeline.front <descriptor>``, as the launcher starts it."""

from collections.abc import Callable

from pipeline.runtime.stage import Stage, run_stage


def load() -> Callable[[Stage], None]:
    """Imported only when the process can report what goes wrong with that."""
    from pipeline.front.main import run_front_stage

    return run_front_stage


if __name__ == "__main__":
    run_stage(load)
