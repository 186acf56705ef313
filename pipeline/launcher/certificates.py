"""``ringserve certificates``: an authority, and certificates of nodes and of a router that it has signed, for a try.

Made by the `openssl` program. Who has an authority already uses it instead: a node's certificate is for servers
(serverAuth) and names the node's hosts, a router's is for clients (clientAuth).
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CA: Final = "ca"
NODE, ROUTER = "node", "router"
_DAYS = "365"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_USE: Final = {NODE: "serverAuth", ROUTER: "clientAuth"}


class OpensslError(Exception):
    """It is missing, or has refused something."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="where they are written; made if missing")
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="HOST",
        help="name or address by which routers know a node; repeated: more (default: 127.0.0.1 and localhost)",
    )


def run(options: argparse.Namespace) -> int:
    """Exit status."""
    try:
        made = make_certificates(options.folder, options.host or ["127.0.0.1", "localhost"])
    except (OpensslError, OSError) as error:
        print(f"no certificates were made: {error}", file=sys.stderr)
        return 1
    print(*made, sep="\n")
    print("Nodes need ca.pem, node.pem and node.key, routers ca.pem, router.pem and router.key; ca.key stays here.")
    return 0


def link_files(folder: Path, role: str) -> dict[str, Path]:
    """Keys of the configuration, and the files of a folder as `make_certificates` fills it."""
    names = (("ca", f"{CA}.pem"), ("certificate", f"{role}.pem"), ("key", f"{role}.key"))
    return {f"pipeline.link.{key}": folder / name for key, name in names}


def make_certificates(folder: Path, hosts: Sequence[str]) -> list[Path]:
    """Certificates and keys of all three; an authority that is there is kept. Raises OpensslError, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = os.umask(0o077)  # keys are for their owner only
    try:
        if not (folder / f"{CA}.key").exists():
            _authority(folder)
        for role in (NODE, ROUTER):
            _signed(folder, role, hosts if role == NODE else ())
    finally:
        os.umask(before)
    return [folder / f"{name}.{kind}" for name in (CA, NODE, ROUTER) for kind in ("pem", "key")]


def _authority(folder: Path) -> None:
    uses = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    files = ("-keyout", str(folder / f"{CA}.key"), "-out", str(folder / f"{CA}.pem"))
    _openssl("req", "-x509", *_NEW_KEY, "-days", _DAYS, "-subj", "/CN=RingServe authority", *uses, *files)


def _signed(folder: Path, role: str, hosts: Sequence[str]) -> None:
    key, certificate = folder / f"{role}.key", folder / f"{role}.pem"
    with tempfile.TemporaryDirectory() as temporary:
        request, extensions = Path(temporary) / "request", Path(temporary) / "extensions"
        extensions.write_text("\n".join(_extensions(role, hosts)))
        subject = ("-subj", f"/CN=RingServe {role}")
        _openssl("req", "-new", *_NEW_KEY, *subject, "-keyout", str(key), "-out", str(request))
        authority = ("-CA", str(folder / f"{CA}.pem"), "-CAkey", str(folder / f"{CA}.key"), "-CAcreateserial")
        files = ("-in", str(request), "-extfile", str(extensions), "-out", str(certificate))
        _openssl("x509", "-req", *authority, *files, "-days", _DAYS)


def _extensions(role: str, hosts: Sequence[str]) -> list[str]:
    names = [f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts]
    more = [f"subjectAltName={','.join(names)}"] if names else []
    return ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature", f"extendedKeyUsage={_USE[role]}", *more]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _openssl(*words: str) -> None:
    """Raises OpensslError."""
    try:
        done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        raise OpensslError("the program openssl is needed for that (Debian, openEuler: package openssl)") from None
    if done.returncode:
        raise OpensslError(f"openssl {words[0]}: {done.stderr.strip().splitlines()[-1]}")
