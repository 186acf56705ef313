"""Whole servers."""

import pytest

from tests.server.launched import Launched


@pytest.fixture
def own(tmp_path):
    """Whole servers for one test, which may kill them."""
    made = []

    def start(*overrides, log=None):
        made.append(Launched(tmp_path, overrides, log))
        return made[-1]

    yield start
    for server in made:
        server.stop()
