"""Whole servers."""

import os

import pytest

from tests.server.supervised import Supervised


@pytest.fixture(scope="module", autouse=True)
def unmeasured():
    """What only a whole server reaches does not count as covered."""
    before = os.environ.pop("RINGSERVE_COVERAGE", None)
    yield
    if before is not None:
        os.environ["RINGSERVE_COVERAGE"] = before


@pytest.fixture
def own(tmp_path):
    """Whole servers for one test, which may kill them."""
    made = []

    def start(*overrides, log=None):
        made.append(Supervised(tmp_path, overrides, log))
        return made[-1]

    yield start
    for server in made:
        server.stop()
