"""A device that fails on purpose: when, and how."""

import multiprocessing
import signal

import numpy as np
import pytest

from model.emulated.fault import fail_at
from model.errors import ModelError


def fail(fault):
    if fault in ("abort", "segfault"):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    fail_at(7, fault, np.array([1, 7], np.int32))


@pytest.mark.parametrize(
    ("fault", "status"), [("exit", 3), ("abort", -signal.SIGABRT), ("segfault", -signal.SIGSEGV), ("hang", None)]
)
def test_the_process_fails_as_asked(fault, status):
    process = multiprocessing.get_context("spawn").Process(target=fail, args=(fault,))
    process.start()
    process.join(1.5 if status is None else 30)
    assert process.exitcode == status
    process.kill()
    process.join()
    process.close()


def test_only_a_token_of_the_step_counts_and_padding_does_not(driver, settings):
    device = driver(settings(fault_token=0, fault="error"))
    device.step({"a": [3, 1, 4]})  # padded with zeros
    with pytest.raises(ModelError, match="token 0 makes this emulated device fail"):
        device.step({"b": [3, 0, 4]})
