"""Ray and Serve on this machine alone, for a try or a test: small, and gone afterwards with all that they wrote."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_STORE_BYTES = 80 << 20  # of Ray's store of objects: nothing large goes through it
_PUSH = "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S"
_AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_SHORT = "/tmp"  # noqa: S108 - a folder of its own in there; paths of sockets have 107 characters at most


@contextlib.contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """Its logs are kept, and named, if what is done meanwhile fails."""
    folder = Path(tempfile.mkdtemp(prefix="ringserve-", dir=_SHORT))
    failed = False
    try:
        _start(cpus, folder)
        yield
    except Exception:
        failed = True
        raise
    finally:
        _stop()
        if failed:
            print(f"Ray's logs, and those of nodes and routers: {folder}/session_latest/logs", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _start(cpus: int, folder: Path) -> None:
    """Serve's proxies stay away: nothing goes through them. Of what Ray says warnings are shown."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(_PUSH, "1")
    if not any(name in os.environ for name in _AUTH):  # Ray would put a token into the user's home
        (token := folder / "token").touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    import ray
    from ray import serve

    ray.init(
        num_cpus=cpus,
        object_store_memory=_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=str(folder),
    )
    serve.start(proxy_location="Disabled")
    logging.getLogger("ray.serve").setLevel(logging.WARNING)


def _stop() -> None:
    """Ray complains of its own end, by this process' output."""
    import ray
    from ray import serve

    with contextlib.redirect_stdout(io.StringIO()):
        try:
            serve.shutdown()
        finally:
            ray.shutdown()
