"""How many examples a random test tries. In `make test` they are the same each time, so that what was right once is
only looked at again: a third of them. `make explore` looks for more: other values each time, and all of them."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

EXPLORING = "RINGSERVE_EXPLORE" in os.environ


def examples(most: int, **more: Any) -> settings:
    """For ``@examples(300)`` above ``@given``; ``more``: other settings of hypothesis."""
    return settings(max_examples=most if EXPLORING else max(20, most // 3), **more)
