"""Tries real clients against a real server: python -m scripts.verify.clients [--only openai,litellm] [--markdown]

Each client creates, streams, counts, meets errors and goes away in the middle; then the server has to be at rest.
What can't be installed here is named. Exit status 1 if a client fails at what it should do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.lab.arguments import parser
from scripts.lab.server import Server, launched
from scripts.lab.table import columns, markdown
from scripts.verify.clients.programs import CLIENTS, HERE, SERVERS, Client, MissingError

MODEL = "emulated"
ABORT = "abort"
LATER: frozenset[tuple[str, str]] = frozenset()
"""What is known not to work."""

_CLIENT_S = 240.0
_REST_S = 10.0
_QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"}
"""Variables that keep clients from asking others than the server."""


@dataclass(slots=True)
class Outcome:
    """`checks`: what was wrong with each, empty if nothing was."""

    client: str
    version: str | None = None
    checks: dict[str, str] = field(default_factory=dict)
    missing: str = ""  # why it was not tried

    @property
    def failures(self) -> list[str]:
        """Those that were not known before."""
        return [name for name, why in self.checks.items() if why and (self.client, name) not in LATER]

    @property
    def line(self) -> list[object]:
        works = ", ".join(name for name, why in self.checks.items() if not why)
        fails = ", ".join(name for name, why in self.checks.items() if why)
        return [self.client, self.version, works or "-", self.missing or fails or "-"]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--only", default="", metavar="NAMES", help="these clients, separated by commas")
    options.add_argument("--markdown", action="store_true", help="the table as in docs/api.md")
    return options.parse_args(arguments)


def try_client(client: Client, server: Server) -> Outcome:
    outcome = Outcome(client.name)
    try:
        command = client.command()
    except MissingError as error:
        outcome.missing = f"not tried: {error}"
        return outcome
    left = _cancelled(server)
    try:
        done = subprocess.run(
            [*command, server.base_url, MODEL],
            env=os.environ | _QUIET, capture_output=True, text=True, check=False, timeout=_CLIENT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        outcome.checks["ends"] = f"it did not within {_CLIENT_S:g} s"
        return outcome
    for line in _lines(done.stdout):
        outcome.version = line.get("version", outcome.version)
        if "check" in line:
            outcome.checks[line["check"]] = line["why"]
    if done.returncode or not outcome.checks:
        outcome.checks["ends"] = f"exit status {done.returncode}: {done.stderr[-300:]}"
    _look_behind(outcome, server, left)
    return outcome


def _lines(text: str) -> Iterator[dict[str, str]]:
    """Those of JSON; clients may print others."""
    for line in text.splitlines():
        if line.startswith('{"'):
            yield json.loads(line)


def _look_behind(outcome: Outcome, server: Server, left: float) -> None:
    """What the server has of the client now."""
    if busy := server.under_way(_REST_S):
        outcome.checks["leaves nothing behind"] = f"still there after {_REST_S:g} s: {busy}"
    if not outcome.checks.get(ABORT, "not asked") and _cancelled(server) <= left:
        outcome.checks[ABORT] = "the server noticed nothing"


def _cancelled(server: Server) -> float:
    return server.metrics().total("requests_total", outcome="cancelled")


def _try_all(clients: Sequence[Client], server_name: str) -> Iterator[tuple[Client, Outcome]]:
    """Those that are tried against this server."""
    own = [client for client in clients if client.server == server_name]
    if not own:
        return
    with (
        tempfile.TemporaryDirectory() as directory,
        launched(HERE / server_name, (), Path(directory) / "server.log") as server,
    ):
        for client in own:
            outcome = try_client(client, server)
            for name, why in outcome.checks.items():
                if why:
                    print(f"{client.name}: {name}: {why}", flush=True)
            yield client, outcome


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    wanted = [name for name in options.only.split(",") if name]
    clients = [client for client in CLIENTS if not wanted or client.name in wanted]
    if unknown := set(wanted) - {client.name for client in clients}:
        print(f"no such client: {', '.join(unknown)}; there are {', '.join(client.name for client in CLIENTS)}")
        return 2
    tried = {client: outcome for name in SERVERS for client, outcome in _try_all(clients, name)}
    outcomes = [tried[client] for client in clients]
    head, lines = ("client", "version", "works", "does not"), [outcome.line for outcome in outcomes]
    print(markdown(head, lines).replace("---:", "---") if options.markdown else columns(head, lines, left=4))
    failures = [f"{outcome.client}: {name}" for outcome in outcomes for name in outcome.failures]
    print("FAILED: " + ", ".join(failures) if failures else "ok")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
