"""HAProxy with the configuration that is shipped, before servers of this machine."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scripts.lab.errors import ServerError
from scripts.lab.processes import Running, running

CONFIG: Final = Path(__file__).parents[2] / "configs/haproxy.cfg"
ABSENT: Final = "haproxy is not installed (Debian: apt-get install haproxy)"
_START_S = 20.0
_POLL_S = 0.05


def find_haproxy() -> str | None:
    """Path of the program; None where it is not installed. Users who are not root may lack its directory."""
    return shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")


@contextlib.contextmanager
def balanced(first: str, second: str, log: Path) -> Iterator[Running]:
    """On any free port before these two, each HOST:PORT, until the context ends. Raises ServerError."""
    program = find_haproxy()
    if program is None:
        raise ServerError(ABSENT)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # inherited: nobody else can take the port meanwhile
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        bind = f"fd@{listener.fileno()}"
        environment = {**os.environ, "RINGSERVE_BIND": bind, "RINGSERVE_FIRST": first, "RINGSERVE_SECOND": second}

        def wait(process: subprocess.Popen[bytes], deadline: float) -> str | None:
            listener.close()  # once HAProxy is gone, connections are refused and do not wait here
            return url if _answers(url, process, deadline) else None

        command = [program, "-db", "-f", str(CONFIG)]
        fds = (listener.fileno(),)
        with running(command, log, wait, timeout_s=_START_S, environment=environment, pass_fds=fds) as proxy:
            yield proxy


def _answers(url: str, process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Whatever it says."""
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=1)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            connection.getresponse().read()
            return True
        time.sleep(_POLL_S)
    return False
