"""Whether a wheel is enough: `python -m scripts.verify.dist dist/ringserve-….whl` (`make test-dist`).

Installs it, with everything that it needs from the package index, into an environment of its own under a temporary
directory, and there serves the demo model that lies in the package, from a directory without the checkout. Takes some
minutes, of which most is downloading. `--reuse DIR`: what it needs is taken from the site-packages of another one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Sequence
from pathlib import Path

from scripts.lab.processes import Running, end, running
from scripts.lab.server import ReadyPipe

_START_S = 300.0
_FIND_DEMO = "from model.demo import DEMO_DIR; print(DEMO_DIR)"
_QUESTION = "What is a ring buffer?"
_SAYS = "fixed size"


def install(wheel: Path, home: Path, reuse: Path | None = None) -> Path:
    """Makes the environment `home`; its `bin`. `reuse`: site-packages whose packages count as installed."""
    venv.EnvBuilder(with_pip=True).create(home)
    python = home / "bin" / "python"
    if reuse is not None:
        site = next(home.glob("lib/python*/site-packages"))
        (site / "reused.pth").write_text(f"{reuse.absolute()}\n")
    dependencies = ["--no-deps"] if reuse is not None else []
    subprocess.run([python, "-m", "pip", "install", "--quiet", *dependencies, wheel], check=True)
    return home / "bin"


def serve(binaries: Path, place: Path) -> str:
    """What the demo model answers, started by the `ringserve` command with `place` as working directory."""
    demo = subprocess.run(
        [binaries / "python", "-c", _FIND_DEMO], cwd=place, capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(demo).is_relative_to(binaries.parent):
        raise SystemExit(f"the demo model is taken from {demo}, not from the wheel")
    few = ("--set", "pipeline.max_rows=1", "--set", "pipeline.token_budget=16")  # graphs to compile
    with ReadyPipe() as pipe:
        command = [str(binaries / "ringserve"), "serve", demo, "--port", "0", *few, *pipe.options]
        log = place / "server.log"
        with running(command, log, pipe.wait, timeout_s=_START_S, pass_fds=pipe.fds, cwd=place) as server:
            return _ask(server)


def _ask(server: Running) -> str:
    body = {"messages": [{"role": "user", "content": _QUESTION}], "temperature": 0}
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{server.base_url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        text = str(json.load(answer)["choices"][0]["message"]["content"])
    if status := end(server.process):
        raise SystemExit(f"the server ended with status {status}")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.verify.dist", description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--reuse", type=Path, metavar="DIR", help="site-packages of another environment")
    options = parser.parse_args(arguments)
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory(prefix="ringserve-dist-") as directory:
        home, place = Path(directory, "environment"), Path(directory, "place")
        place.mkdir()
        os.environ["XDG_CACHE_HOME"] = str(place)
        text = serve(install(options.wheel.absolute(), home, options.reuse), place)
    print(text)
    return 0 if _SAYS in text else 1


if __name__ == "__main__":
    sys.exit(main())
