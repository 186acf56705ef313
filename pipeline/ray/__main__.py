"""``python -m pipeline.ray MODEL``: an application on this machine, Ray included, until it is interrupted."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.launcher.certificates import OpensslError, make_certificates
from pipeline.ray.child import free_port
from pipeline.ray.local import local_ray
from pipeline.ray.settings import NodeSettings, RouterSettings

_HOST = "127.0.0.1"
_CPUS = 64  # logical ones: what nodes need is not counted here


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if free_port(_HOST, [options.port]) is None:
        print(f"port {options.port} is in use; another one: --port N, 0 for any", file=sys.stderr)
        return 1
    if importlib.util.find_spec("ray") is None:
        print("Ray is not installed: pip install 'ringserve[ray]'", file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            places = {"model": Path(options.model), "certificates": options.certificates or _certificates(folder)}
            common: dict[str, Any] = {name: str(path.absolute()) for name, path in places.items()}
            common["settings"] = options.set
            most = max(options.nodes, options.max_nodes)
            nodes = NodeSettings(**common, min_nodes=options.nodes, max_nodes=most, host=_HOST)
            if status := _check(nodes.launch("node", f"pipeline.link.listen={_HOST}:0")):
                return status
            print("starting Ray", flush=True)
            with local_ray(_CPUS):
                _serve(nodes, RouterSettings(**common, ports=[options.port], max_nodes=2 * most))
                return 0
    except (OpensslError, RuntimeError) as error:  # RuntimeError: an application does not start
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _serve(some: NodeSettings, one: RouterSettings) -> None:
    """Until it is interrupted. Raises RuntimeError."""
    from ray import serve

    from pipeline.ray.application import ROUTERS, deploy, directory, nodes, routers

    deploy(directory=directory)
    print(f"starting {some.min_nodes} nodes: each loads {some.model}", flush=True)
    deploy(nodes=nodes(some))
    print("starting the router", flush=True)
    deploy(routers=routers(one))
    router: Any = serve.get_app_handle(ROUTERS)
    urls = router.urls.remote().result()
    print(f"listening on {urls['api']}; metrics and the live page: {urls['operators']}; Ctrl-C ends it", flush=True)
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    told.wait()
    print(f"ending: requests that run have {some.drain_s:g} s to finish; Ctrl-C again ends them", flush=True)
    for number, handler in before.items():
        signal.signal(number, handler)


def _check(launch: Sequence[str]) -> int:
    """The exit status of a node's own check, which says what is wrong: Ray would start it again and again."""
    words = [sys.executable, "-P", "-m", "pipeline.launch", *launch, "--check"]
    return subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode


def _certificates(folder: str) -> Path:
    """Raises OpensslError."""
    make_certificates(Path(folder), [_HOST])
    return Path(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.ray", description=__doc__)
    parser.add_argument("model", help="a model's folder, or a YAML file as in configs/")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--max-nodes", type=int, default=0, help="there are more of them under load")
    parser.add_argument("--port", type=int, default=8835, help="of the router; 0: any that is free")
    parser.add_argument("--certificates", type=Path, metavar="DIR", help="in place of some for this run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of nodes and the router")
    return parser


if __name__ == "__main__":
    sys.exit(main())
