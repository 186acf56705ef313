"""Runs a real front for the tests. Arguments: settings as JSON, descriptors of control channel, journal and
statistics."""

from __future__ import annotations

import functools
import json
import socket
import sys
from dataclasses import replace
from pathlib import Path

from model.demo import DEMO_DIR
from model.response import choose_format
from model.tokenizer import Tokenizer, TokenTable, load_tokenizer, pack_vocabulary
from pipeline.front.http.access import ApiKeys
from pipeline.front.server import run_front
from pipeline.front.settings import FrontSettings, LinkSettings
from pipeline.launcher.api_keys import _checked
from pipeline.runtime.control_channel import Channel
from pipeline.runtime.generations import Control
from pipeline.runtime.malloc_policy import share_one_heap
from pipeline.stats import StatsHandle


@functools.cache
def read(folder: str) -> tuple[Tokenizer, TokenTable]:
    tokenizer = load_tokenizer(Path(folder))
    return tokenizer, TokenTable(memoryview(pack_vocabulary(tokenizer)))


read(str(DEMO_DIR))  # once, in the process that all fronts are forked from


def listening(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    listener.setblocking(False)
    return listener


def router(certificates: Path, nodes: int) -> LinkSettings:
    files = {"ca": "ca.pem", "certificate": "router.pem", "key": "router.key"}
    return LinkSettings(max_nodes=nodes, **{key: certificates / name for key, name in files.items()})


def main() -> None:
    values, (control, journal, stats) = json.loads(sys.argv[1]), map(int, sys.argv[2:5])
    tokenizer, table = read(values.pop("tokenizer", str(DEMO_DIR)))
    if formats := values.pop("formats", None):
        values["response_format"] = choose_format(tokenizer, *formats)
    keys = ApiKeys(
        _checked(((line.partition(" ")[::2]) for line in values.pop("api_keys")), "") if "api_keys" in values else ()
    )
    if "without" in values:
        sys.modules[values.pop("without")] = None  # type: ignore[assignment]  # as if it were not installed
    if "certificates" in values:
        values["link"] = router(Path(values.pop("certificates")), values["replicas"])
    settings = FrontSettings(**values)
    listeners = [listening(0)]
    if settings.metrics_port is not None:
        listeners.append(listening(settings.metrics_port))
        settings = replace(settings, metrics_port=listeners[1].getsockname()[1])
    port = listeners[0].getsockname()[1]
    print(json.dumps({"listening": {"port": port, "metrics_port": settings.metrics_port}}), flush=True)
    share_one_heap()
    run_front(
        settings,
        Control(Channel.inherited(control)),
        StatsHandle(stats),
        listeners,
        table,
        keys,
        journal_fd=journal,
    )
