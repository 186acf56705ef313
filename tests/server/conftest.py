"""Whole servers."""

import pytest

from tests.server.test_server import Launched


@pytest.fixture
def own(tmp_path):
    """Whole servers for one test, which may kill them."""
    made = []

    def start(*overrides):
        made.append(Launched(tmp_path, overrides))
        return made[-1]

    yield start
    for server in made:
        server.stop()
