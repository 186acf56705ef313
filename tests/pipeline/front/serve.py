"""Runs a real front for the tests: ``python serve.py <settings as JSON> <control descriptor> <stats descriptor>``.

In place of a control descriptor, handles as JSON: then there is one set of rings, and the front ends with it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import ipc
from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from pipeline.front.http.access import ApiKeys
from pipeline.front.http.api_keys import digest
from pipeline.front.server import bind, run_front
from pipeline.front.settings import FrontRings, FrontSettings
from pipeline.runtime.control_channel import Channel
from pipeline.runtime.generations import Control
from pipeline.stats import StatsHandle


def say(**listening: Any) -> None:
    print(json.dumps({"listening": listening}), flush=True)


def main() -> None:
    values, given, stats = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
    tokenizer = values.pop("tokenizer", DEMO_DIR)
    keys = ApiKeys(digest(key.encode()) for key in values.pop("api_keys", []))
    settings = FrontSettings(**values)
    listeners = [bind(settings.host, settings.port)]
    if settings.metrics_port is not None:
        listeners.append(bind(settings.host, settings.metrics_port))
        settings = replace(settings, metrics_port=listeners[1].getsockname()[1])
    rings: FrontRings | Control
    if isinstance(given, int):
        rings = Control(Channel.inherited(given))
    else:
        rings = FrontRings(**{name: ipc.RingHandle.from_text(text) for name, text in given.items()})
    run_front(
        settings,
        rings,
        StatsHandle(stats),
        listeners=listeners,
        load_tokenizer=lambda: load_tokenizer(tokenizer),
        keys=keys,
        on_listening=lambda host, port: say(host=host, port=port, metrics_port=settings.metrics_port),
    )


if __name__ == "__main__":
    main()
