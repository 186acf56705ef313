"""``python -m pipeline.ray MODEL``: an application on this machine, Ray included, until it is interrupted."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.launcher.certificates import OpensslError, make_certificates

_PUSH = "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S"
STORE_BYTES = 80 << 20
"""Of Ray's store of objects: nothing large goes through it."""


def start_ray(cpus: int) -> None:
    """On this machine alone, and small. Serve's proxies stay away: nothing goes through them."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(_PUSH, "1")
    import ray
    from ray import serve

    ray.init(
        num_cpus=cpus,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    serve.start(proxy_location="Disabled")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            certificates = options.certificates or _certificates(Path(folder))
        except OpensslError as error:
            print(error, file=sys.stderr)
            return 1
        start_ray(cpus=64)  # logical ones: what nodes need is not counted here
        return _serve(options, str(certificates))


def _serve(options: argparse.Namespace, certificates: str) -> int:
    from ray import serve

    from pipeline.ray.application import ROUTERS, NodeSettings, RouterSettings, deploy, directory, nodes, routers

    common = {"model": str(Path(options.model).absolute()), "certificates": certificates, "settings": options.set}
    most = max(options.nodes, options.max_nodes)
    some = NodeSettings(**common, min_nodes=options.nodes, max_nodes=most, host="127.0.0.1")
    one = RouterSettings(**common, ports=[options.port], max_nodes=2 * most)
    try:
        deploy(directory=directory, nodes=nodes(some), routers=routers(one))
        router: Any = serve.get_app_handle(ROUTERS)
        print(f"{options.nodes} nodes; listening on {router.url.remote().result()}", flush=True)
        told = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: told.set())
        told.wait()
    finally:
        serve.shutdown()
    return 0


def _certificates(folder: Path) -> Path:
    make_certificates(folder, ["127.0.0.1"])
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.ray", description=__doc__)
    parser.add_argument("model", help="a model's folder, or a YAML file as in configs/")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--max-nodes", type=int, default=0, help="there are more of them under load")
    parser.add_argument("--port", type=int, default=8835)
    parser.add_argument("--certificates", type=Path, metavar="DIR", help="in place of some for this run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of nodes and the router")
    return parser


if __name__ == "__main__":
    sys.exit(main())
