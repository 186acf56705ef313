"""Coding agents, one turn each: python coding.py AGENT EXECUTABLE URL MODEL

What they send is what matters here: tens of thousands of tokens of instructions and tools. The model is an emulated
device, whose words mean nothing, so nothing is asked of it but that it answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TURN_S = 120
_ASKED = "Say hello."


def codex(executable: str, url: str, model: str, home: Path) -> tuple[list[str], dict[str, str]]:
    """The Responses API; its configuration is a file."""
    provider = f'name = "RingServe"\nbase_url = "{url}/v1"\nwire_api = "responses"\n'
    text = f'model = "{model}"\nmodel_provider = "ringserve"\nweb_search = "disabled"\n'
    (home / "config.toml").write_text(f"{text}\n[model_providers.ringserve]\n{provider}")
    return [executable, "exec", "--json", "--skip-git-repo-check", _ASKED], {"CODEX_HOME": str(home)}


def claude(executable: str, url: str, model: str, home: Path) -> tuple[list[str], dict[str, str]]:
    """The Messages API."""
    names = ("ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL")
    own = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": "none", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    return [executable, "-p", "--output-format", "json", _ASKED], own | dict.fromkeys(names, model)


def _usage(agent: str, lines: list[dict[str, Any]]) -> tuple[bool, Mapping[str, int]]:
    """Whether the turn ended well, and its counts."""
    if agent == "codex":
        ends = [line for line in lines if line.get("type") == "turn.completed"]
        return bool(ends), ends[-1]["usage"] if ends else {}
    last = lines[-1] if lines else {}
    return last.get("subtype") == "success" and not last.get("is_error"), last.get("usage", {})


def main() -> None:
    agent, executable, url, model = sys.argv[1:5]
    version = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout.split()
    print(json.dumps({"version": next(word for word in version if word[:1].isdigit())}))
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        home.mkdir()
        command, own = {"codex": codex, "claude": claude}[agent](executable, url, model, home)
        done = subprocess.run(
            command, cwd=directory, env=os.environ | {"HOME": str(home)} | own, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=_TURN_S,
        )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    ended, usage = _usage(agent, lines)
    told = (done.stdout + done.stderr)[-300:]
    print(json.dumps({"check": "turn", "why": "" if ended else told}))
    counted = usage.get("input_tokens", 0) > 1000 and usage.get("output_tokens", 0) > 0
    print(json.dumps({"check": "usage", "why": "" if counted else f"{dict(usage)}"}))


if __name__ == "__main__":
    main()
