"""What runs real clients: what it makes of what they say. The clients themselves: `make test-clients`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from scripts.lab.server import Server
from scripts.verify.clients import __main__ as clients
from scripts.verify.clients.__main__ import LATER, Outcome, main, try_client
from scripts.verify.clients.programs import (
    AGENTS,
    CLIENTS,
    EVALUATION,
    HERE,
    LOCKS,
    NODE,
    PYTHON,
    Client,
    MissingError,
)


class Counting(Server):
    """Has what clients left behind as a test says."""

    __slots__ = ()
    cancelled = 0

    def under_way(self, patience_s):
        return {}

    def metrics(self):
        class Totals:
            total = staticmethod(lambda name, **labels: self.cancelled)

        return Totals()


@pytest.fixture
def server():
    return Counting(0, "http://127.0.0.1:1", 0.0, Path("/dev/null"), None)


def says(*lines, status=0):
    program = f"print({chr(10).join(lines)!r}); raise SystemExit({status})"
    return Client("one", lambda: [sys.executable, "-c", program])


def test_what_a_client_says(server):
    lines = ["noise", json.dumps({"version": "1.2"}), json.dumps({"check": "create", "why": ""})]
    outcome = try_client(says(*lines, json.dumps({"check": "usage", "why": "wrong"})), server)
    assert outcome.line == ["one", "1.2", "create", "usage"]
    assert outcome.failures == ["usage"]


def test_a_client_that_dies_has_failed(server):
    for client in (says("noise"), says(json.dumps({"check": "create", "why": ""}), status=3)):
        assert try_client(client, server).failures == ["ends"]


def test_a_stream_that_was_left_has_to_be_noticed(server):
    client = says(json.dumps({"check": "abort", "why": ""}))
    assert try_client(client, server).failures == ["abort"]


def test_what_cannot_be_installed_is_named(server):
    def command():
        raise MissingError("no such tool")

    outcome = try_client(Client("one", command), server)
    assert outcome.line == ["one", None, "-", "not tried: no such tool"]
    assert not outcome.failures


def test_what_is_known_not_to_work_is_no_failure(monkeypatch):
    known = frozenset({("litellm", "usage")})
    monkeypatch.setattr(clients, "LATER", known)
    assert Outcome("litellm", checks={"usage": "still so", "create": "broken"}).failures == ["create"]
    assert {client for client, _ in LATER} <= {client.name for client in CLIENTS}


def test_every_client_has_its_program_and_its_version_in_a_lock():
    assert all((HERE / "python" / f"{name}_client.py").exists() for name in PYTHON + AGENTS + EVALUATION)
    assert all((HERE / "node" / f"{name}.mjs").exists() for name in NODE)
    for file in LOCKS.values():
        lock = HERE / "python" / file
        lines = lock.with_suffix(".in").read_text().splitlines()
        wanted = [line.partition("[")[0] for line in lines if line[0] != "#"]
        locked = dict(line.split("==") for line in lock.read_text().splitlines() if line[0] != "-")
        assert {name.replace("_", "-") for name in wanted} <= {name.replace("_", "-") for name in locked}
    package, lock = (json.loads((HERE / "node" / name).read_text()) for name in ("package.json", "package-lock.json"))
    assert lock["packages"][""]["dependencies"] == package["dependencies"]


def test_an_unknown_client_is_refused(capsys):
    assert main(["--only", "netscape"]) == 2
    assert "no such client: netscape; there are openai, " in capsys.readouterr().out
