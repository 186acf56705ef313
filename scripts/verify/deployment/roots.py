"""Clean roots of a Debian system, and commands in them: as root while an image is built, as anybody later.

A command has mounts and processes of its own, which end with it, and this machine's network, certificates of its
package registries included. Needs root and mmdebstrap.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.lab.errors import BenchError

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOSTS_FILES: Final = ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt")
_HOSTS_SETTINGS: Final = ("PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy")
_PYTHON: Final = "python3.11"
_PACKAGES: Final = f"{_PYTHON},{_PYTHON}-venv,lib{_PYTHON}-dev,ca-certificates"


@dataclass(frozen=True, slots=True)
class Mount:
    """`source` None: memory, `size` bytes of it."""

    target: str
    source: Path | None = None
    size: int = 0
    read_only: bool = False

    def commands(self, root: Path) -> list[str]:
        """In a shell that has mounts of its own."""
        place = shlex.quote(f"{root}{self.target}")
        if self.source is None:
            return [f"mkdir -p {place}", f"mount -t tmpfs -o mode=1777,size={self.size} tmpfs {place}"]
        made = f"mkdir -p {place}" if self.source.is_dir() else f"mkdir -p $(dirname {place}); touch {place}"
        bound = [made, f"mount --bind {shlex.quote(str(self.source))} {place}"]
        return [*bound, f"mount -o remount,bind,ro {place}"] if self.read_only else bound


def require() -> None:
    """Raises BenchError where roots can't be made here."""
    if os.geteuid():
        raise BenchError("clean roots are made by root only")
    for program, package in (("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            raise BenchError(f"{program} is needed (Debian: apt-get install {package})")


def python_root(image: str, folder: Path) -> Path:
    """What stands in for `python:3.11-slim-bookworm`: Debian's Python where that image has its own, headers included.
    Kept. Raises BenchError."""
    version, _, suite = image.removeprefix("python:").partition("-slim-")
    if f"python{version}" != _PYTHON or not suite:
        raise BenchError(f"FROM {image}: only python:3.11-slim-SUITE has a stand-in")
    root = folder / f"base-{suite}"
    if not (root / "usr/local/bin/python").exists():
        shutil.rmtree(root, ignore_errors=True)
        called = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", suite, str(root)]
        _checked(called, f"no root of {suite}")
        for name in ("python", "python3", _PYTHON):
            (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{_PYTHON}")
    return root


def copied(root: Path, to: Path) -> Path:
    """Another one that begins alike. Raises BenchError."""
    shutil.rmtree(to, ignore_errors=True)
    _checked(["cp", "--archive", "--reflink=auto", str(root), str(to)], f"{root} can't be copied")
    return to


def build_command(root: Path, script: str, folder: str, environment: Mapping[str, str], user: str) -> list[str]:
    """A shell's, while an image is made: with what this machine needs for its registries."""
    mounts = [Mount(name, Path(name), read_only=True) for name in _HOSTS_FILES if Path(name).exists()]
    own = {name: value for name, value in os.environ.items() if name.startswith(_HOSTS_SETTINGS)}
    return command(root, ["/bin/sh", "-c", script], folder, {**own, **environment}, user, mounts)


def command(
    root: Path,
    words: Sequence[str],
    folder: str,
    environment: Mapping[str, str],
    user: str,
    mounts: Sequence[Mount] = (),
    *,
    read_only: bool = False,
) -> list[str]:
    """As process 1 of this root. A user who is not root has no capabilities, and gets none; `read_only`: nothing but
    mounts can be written."""
    every = [
        f"mount --bind {root} {root}",
        *(line for mount in mounts for line in mount.commands(root)),
        *([f"mount -o remount,bind,ro {root}"] if read_only else ()),
        f"mount -t proc proc {root}/proc",
        *(f"mount --rbind /dev/{name} {root}/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")),
    ]
    drop = ["--bounding-set=-all", "--no-new-privs"] if user != "0" else []
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *drop]
    settings = [f"{name}={value}" for name, value in {"PATH": _PATH, "HOME": folder, **environment}.items()]
    inside = ["chroot", str(root), *as_user, "env", "-i", f"--chdir={folder}", *settings, *words]
    script = "; ".join(["set -e", *every, f"exec {shlex.join(inside)}"])
    return ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "/bin/sh", "-c", script]


def _checked(called: Sequence[str], what: str) -> None:
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{what}: {done.stderr.strip()[-2000:]}")
