"""Commands that run what follows in a mount namespace of its own; they skip the test where that is not allowed."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def with_shared_memory(options: str) -> list[str]:
    """With a /dev/shm of its own, mounted with these options: size=11m, for example."""
    ways = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    for way in ways if shutil.which("unshare") else ():
        if subprocess.run([*way, "sh", "-c", mount], capture_output=True, check=False).returncode == 0:
            return [*way, "sh", "-c", f'{mount} && exec "$@"', "sh"]
    pytest.skip("no mount namespaces here")
