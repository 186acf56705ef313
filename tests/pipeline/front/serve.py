"""Runs a real front for the tests: ``python serve.py <settings as JSON> <handles as JSON> <stats descriptor>``."""

from __future__ import annotations

import json
import sys
from typing import Any

import ipc
from pipeline.front import FrontRings, FrontSettings, run_front
from pipeline.stats import StatsHandle


class Words:
    """What the front needs of a tokenizer: names of tokens."""

    def token_text(self, token_id: int) -> str:
        return f"t{token_id}"


def main() -> None:
    settings, handles, stats = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
    rings = {name: ipc.RingHandle.from_text(text) for name, text in handles.items()}
    words: Any = Words()
    run_front(
        FrontSettings(**settings),
        FrontRings(rings["requests"], rings["replies"], rings["deltas"]),
        StatsHandle(stats),
        load_tokenizer=lambda: words,
        on_listening=lambda host, port: print(json.dumps({"host": host, "port": port}), flush=True),
    )


if __name__ == "__main__":
    main()
