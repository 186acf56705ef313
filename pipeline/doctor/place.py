"""Where the server listens, which clients it lets in, and where it writes."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.doctor.finding import Finding, fail, ok, warn
from pipeline.doctor.subject import Host, Plan
from pipeline.launcher.api_keys import KeysError, key_file_warning, load_api_keys
from pipeline.launcher.listening import exposed

_FIXES = {
    errno.EADDRINUSE: "stop the process that listens there (ss -ltnp), or choose another port: --set {key}=…",
    errno.EACCES: "choose a port above 1023, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit",
    errno.EADDRNOTAVAIL: "choose an address of this host (ip address)",
}
_LEAST_CACHE_BYTES = 256 << 20


def check_port(_: Host, plan: Plan) -> Iterator[Finding]:
    """Bound and closed at once, without listening."""
    config = plan.config
    places = [
        (host, config.serving_config.server_port, "serving_config.server_port") for host in config.pipeline.hosts
    ]
    if config.pipeline.metrics_port is not None:
        places.append((config.pipeline.metrics_host, config.pipeline.metrics_port, "pipeline.metrics_port"))
    for host, port, key in places:
        try:
            with _bound(host, port):
                yield ok("network", f"{host} port {port} is free" if port else f"{host}: any free port")
        except OSError as error:
            fix = _FIXES.get(error.errno or 0, "choose another address or port").format(key=key)
            yield fail("network", f"can't listen on {host} port {port}: {error.strerror or error}", fix)


def check_keys(_: Host, plan: Plan) -> Iterator[Finding]:
    try:
        keys = load_api_keys(plan.config)
    except KeysError as error:
        yield fail("security", str(error), "correct or remove the key")
        return
    if unsafe := key_file_warning(plan.config.pipeline.api_keys_file):
        yield warn("security", unsafe, f"chmod 600 {plan.config.pipeline.api_keys_file}")
    if keys:
        yield ok("security", f"API keys: {len(keys)}")
    elif any(map(_is_exposed, plan.config.pipeline.hosts)):
        text = "other machines may reach this server, and no API key is needed to use it"
        yield warn("security", text, "set RINGSERVE_API_KEY or pipeline.api_keys_file, or listen on 127.0.0.1")
    else:
        yield ok("security", "no API key is needed, and only this machine can connect")


def _is_exposed(host: str) -> bool:
    try:
        with _bound(host, 0) as listener:
            return exposed(listener)
    except OSError:
        return False  # `check_port` reports what is wrong with it


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def check_compile_cache(_: Host, plan: Plan) -> Iterator[Finding]:
    """The first start compiles, or quantizes, and writes there."""
    cache, kind = plan.config.pipeline.runner.compile_cache, plan.config.pipeline.runner.kind
    if kind == "emulated":
        return
    if not isinstance(cache, Path):
        text = "compiled graphs are not cached: every start, and every restart of inference, compiles again"
        if kind == "openvino":
            text = "converted weights have no file: they are in memory twice, and every start converts them again"
        yield warn("files", text, "pipeline.runner.compile_cache: a directory that outlives the server")
        return
    directory = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    if error := _unwritable(directory):
        yield fail("files", f"compile cache {cache} is not writable: {error}", f"chown or chmod {directory}")
    elif (free := os.statvfs(directory)).f_bavail * free.f_frsize < _LEAST_CACHE_BYTES:
        yield warn("files", f"compile cache {cache}: less than 256 MiB are free", "free disk space there")
    else:
        yield ok("files", f"compile cache {cache} is writable")


def _unwritable(directory: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return ""
    except OSError as error:
        return error.strerror or str(error)
