"""Runs a real front for the tests: ``python serve.py <settings as JSON> <handles as JSON> <stats descriptor>``."""

from __future__ import annotations

import json
import sys

import ipc
from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from pipeline.front import FrontRings, FrontSettings, run_front
from pipeline.stats import StatsHandle


def main() -> None:
    settings, handles, stats = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
    tokenizer = settings.pop("tokenizer", DEMO_DIR)
    rings = {name: ipc.RingHandle.from_text(text) for name, text in handles.items()}
    run_front(
        FrontSettings(**settings),
        FrontRings(rings["requests"], rings["replies"], rings["deltas"]),
        StatsHandle(stats),
        load_tokenizer=lambda: load_tokenizer(tokenizer),
        on_listening=lambda host, port: print(json.dumps({"host": host, "port": port}), flush=True),
    )


if __name__ == "__main__":
    main()
