"""Runs a real front for the tests: ``python serve.py <settings as JSON> <control descriptor> <stats descriptor>``.

In place of a control descriptor, handles as JSON: then there is one set of rings, and the front ends with it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import ipc
from pipeline.control import Channel
from pipeline.front import FrontRings, FrontSettings, run_front
from pipeline.generations import Control
from pipeline.stats import StatsHandle


class Words:
    """What the front needs of a tokenizer: names of tokens."""

    def token_text(self, token_id: int) -> str:
        return f"t{token_id}"


def main() -> None:
    settings, given, stats = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
    words: Any = Words()
    rings: FrontRings | Control
    if isinstance(given, int):
        rings = Control(Channel.inherited(given))
    else:
        rings = FrontRings(**{name: ipc.RingHandle.from_text(text) for name, text in given.items()})
    run_front(
        FrontSettings(**settings),
        rings,
        StatsHandle(stats),
        load_tokenizer=lambda: words,
        on_listening=lambda host, port: print(json.dumps({"host": host, "port": port}), flush=True),
    )


if __name__ == "__main__":
    main()
