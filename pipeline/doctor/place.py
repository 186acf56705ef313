"""Where the server listens, and where it writes."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.doctor.finding import Finding, fail, ok, warn
from pipeline.doctor.subject import Host, Plan

_FIXES = {
    errno.EADDRINUSE: "stop who listens there (ss -ltnp), or choose another: --set serving_config.server_port=…",
    errno.EACCES: "choose a port above 1023, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit",
    errno.EADDRNOTAVAIL: "choose an address of this host (ip address) for serving_config.server_ip",
}
_LEAST_CACHE_BYTES = 256 << 20


def check_port(_: Host, plan: Plan) -> Iterator[Finding]:
    port = plan.config.serving_config.server_port
    for host in plan.config.pipeline.hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, port))
        except OSError as error:
            fix = _FIXES.get(error.errno or 0, "choose another address or port")
            yield fail("network", f"{host} port {port} can't be listened on: {error.strerror or error}", fix)
        else:
            yield ok("network", f"{host} port {port} is free" if port else f"{host}: any free port")


def check_compile_cache(_: Host, plan: Plan) -> Iterator[Finding]:
    """Written to while the first start compiles."""
    cache = plan.config.pipeline.runner.compile_cache
    if plan.config.pipeline.runner.kind != "mindformers":
        return
    if cache is None:
        text = "compiled graphs are not kept: every start, and every restart of inference, compiles anew"
        yield warn("files", text, "pipeline.runner.compile_cache: a directory that outlives the server")
        return
    directory = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    if error := _unwritable(directory):
        yield fail("files", f"{cache}, for compiled graphs, can't be written: {error}", f"chown or chmod {directory}")
    elif (free := os.statvfs(directory)).f_bavail * free.f_frsize < _LEAST_CACHE_BYTES:
        yield warn("files", f"{cache}, for compiled graphs: less than 256 MiB are free", "make room there")
    else:
        yield ok("files", f"{cache} can be written")


def _unwritable(directory: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return ""
    except OSError as error:
        return error.strerror or str(error)
