"""The sampling process: ``python -m pipeline.sampling <descriptor>``, as the launcher starts it."""

from collections.abc import Callable

from pipeline.runtime.stage import Stage, run_stage


def load() -> Callable[[Stage], None]:
    """Imported only when the process can report what goes wrong with that."""
    from pipeline.sampling.main import run_sampling

    return run_sampling


if __name__ == "__main__":
    run_stage(load)
