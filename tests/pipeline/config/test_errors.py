"""Many mistakes in one message."""

from __future__ import annotations

import pytest

from pipeline.config import ConfigurationError, load_configuration
from tests.pipeline.config.helpers import MODEL


def test_more_mistakes_than_anyone_reads(write):
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(write(MODEL + "".join(f"key{n}: 1\n" for n in range(150))))
    lines = str(caught.value).splitlines()
    assert (len(caught.value.problems), len(lines), lines[-1]) == (150, 102, "  … and 50 more")
