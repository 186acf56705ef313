"""The clients, their environments, and how each is started."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.lab.paths import ROOT

HERE = Path(__file__).parent
CACHE = ROOT / ".cache" / "clients"
_INSTALL_S = 900
_WORDS = 300  # of what an installer said


class MissingError(Exception):
    """A client can't be tried here; the message says why."""


@dataclass(frozen=True, slots=True)
class Client:
    """`command` returns what to start, URL and model to follow. It installs what is needed, once. Raises
    MissingError. `server`: the configuration of the server that it is tried against."""

    name: str
    command: Callable[[], list[str]]
    server: str = "server.yaml"


def _done(mark: Path, lock: Path) -> bool:
    """What is installed is what the lock says."""
    return mark.exists() and mark.read_bytes() == lock.read_bytes()


def _install(what: str, *commands: list[str], directory: Path) -> None:
    for command in commands:
        try:
            subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
        except FileNotFoundError:
            raise MissingError(f"{command[0]} is not installed") from None
        except subprocess.CalledProcessError as error:
            raise MissingError(f"{what} can't be installed: {error.stderr.strip()[-_WORDS:]}") from None
        except subprocess.TimeoutExpired:
            raise MissingError(f"{what} can't be installed within {_INSTALL_S} s") from None


def _python(program: str, environment: str = "python", server: str = "server.yaml") -> Client:
    def command() -> list[str]:
        home, lock = CACHE / environment, HERE / "python" / LOCKS[environment]
        if not _done(home / "installed", lock):
            shutil.rmtree(home, ignore_errors=True)
            CACHE.mkdir(parents=True, exist_ok=True)
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement", str(lock)]
            _install("the Python packages", [sys.executable, "-m", "venv", str(home)], pip, directory=CACHE)
            (home / "installed").write_bytes(lock.read_bytes())
        return [str(home / "bin" / "python"), str(HERE / "python" / f"{program}_client.py")]

    return Client(program.replace("_", "-"), command, server)


def _npm(what: str, environment: str) -> Path:
    """Where the packages are. JavaScript finds them beside the program: it is copied there."""
    home, lock = CACHE / environment, HERE / environment / "package-lock.json"
    home.mkdir(parents=True, exist_ok=True)
    for file in (HERE / environment).iterdir():
        shutil.copy(file, home)
    if not _done(home / "installed", lock):
        _install(what, ["npm", "ci", "--silent"], directory=home)
        (home / "installed").write_bytes(lock.read_bytes())
    return home


def _node(program: str) -> Client:
    def command() -> list[str]:
        return ["node", str(_npm("the npm packages", "node") / f"{program}.mjs")]

    return Client(f"{program} (npm)", command)


def _coding(agent: str) -> Client:
    def command() -> list[str]:
        installed = _npm("the coding agents", "coding") / "node_modules" / ".bin" / agent
        return [sys.executable, str(HERE / "coding.py"), agent, str(installed)]

    return Client(f"{agent} (npm)", command, "coding.yaml")


def _there(name: str, tool: str, *command: str) -> Client:
    """For which the machine has to have the tool."""

    def checked() -> list[str]:
        if shutil.which(tool) is None:
            raise MissingError(f"{tool} is not installed")
        return list(command)

    return Client(name, checked)


LOCKS = {"python": "requirements.txt", "agents": "agents.txt", "lm_eval": "lm_eval.txt"}
"""Of the environments: the Agents SDK needs a newer openai than litellm allows, lm-eval brings torch."""
PYTHON = (
    "openai", "anthropic", "litellm", "langchain_openai", "langchain_ollama", "llama_index", "huggingface", "ollama",
)  # fmt: skip
AGENTS = ("openai_agents",)
EVALUATION = ("lm_eval",)
DEMO = "../../../configs/demo.yaml"
"""Whose scores can be compared with those of another engine."""
NODE = ("openai", "ai", "langchain", "ollama")
CODING = ("codex", "claude")
CLIENTS = (
    *map(_python, PYTHON),
    *(_python(program, "agents") for program in AGENTS),
    *(_python(program, "lm_eval", DEMO) for program in EVALUATION),
    *map(_node, NODE),
    *map(_coding, CODING),
    _there("curl --http2", "curl", sys.executable, str(HERE / "curl.py")),
    _there("JDK HttpClient", "javac", "java", str(HERE / "java" / "Jdk.java")),  # compiled as it is started
)
SERVERS = tuple(dict.fromkeys(client.server for client in CLIENTS))
