"""The process that looks at a folder of weights: the launcher asks now and then whether it is done."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time

from pipeline.config import Configuration
from pipeline.launcher.child import anonymous_file, start_process
from pipeline.launcher.weights.check import RefusedError, Weights

log = logging.getLogger("ringserve.launcher")

MOST_S = 300.0
"""For a folder on a file system that answers slowly."""


class CheckProcess:
    """`result` is None until it is done."""

    def __init__(self, config: Configuration, folder: str) -> None:
        """Raises OSError when no process can be made."""
        asked = json.dumps({"configuration": config.to_yaml(), "folder": folder}).encode()
        self._deadline = time.monotonic() + MOST_S
        command = [sys.executable, "-P", "-m", "pipeline.launcher.weights"]
        with anonymous_file("check", asked) as fd:
            self._process = start_process(command, fd, stdout=subprocess.PIPE)

    def result(self) -> Weights | RefusedError | None:
        """Once; then it is over. What it says fits into a pipe."""
        if self._process.poll() is None:
            if time.monotonic() < self._deadline:
                return None
            self.close()
            return RefusedError(f"the folder could not be looked at within {MOST_S:g} s")
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            said = pipe.read()
        if self._process.returncode:
            return RefusedError("the folder could not be looked at; the log says why")
        return _understood(said)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _understood(said: bytes) -> Weights | RefusedError:
    """Whatever it is: the launcher goes on."""
    try:
        found = json.loads(said)
        return RefusedError(found["refused"]) if "refused" in found else Weights(**found)
    except (ValueError, TypeError) as error:
        log.error("weights: the process that looked at the folder said %r: %s", said[:200], error)  # noqa: TRY400
        return RefusedError("the folder could not be looked at; the log says why")
