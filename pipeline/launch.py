"""``python -m pipeline.launch --config configs/….yaml``: starts the four stages and holds them together.

The launcher makes the segments, the rings and the listening sockets, starts the stages, tells what they do until they
are ready, and watches over them: one that dies is started anew, and all get fresh rings. Whatever ends it, nothing is
left behind: names in /dev/shm are gone as soon as segments are made, and no stage outlives the launcher.
"""

from __future__ import annotations

import argparse
import sys

import ipc
from model.errors import ModelError
from pipeline.config import ConfigurationError, load_configuration
from pipeline.config.__main__ import warnings_of
from pipeline.front.http.api_keys import KeysError, key_file_warning
from pipeline.host.cpu_placement import fit_to_host
from pipeline.host.facts import HostError, prepare_host
from pipeline.launcher import Supervisor, report
from pipeline.launcher.listening import PortInUseError
from pipeline.runtime.engines import make_runner, shapes_of


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.launch", description="Start RingServe.")
    parser.add_argument("--config", required=True, metavar="FILE", help="a YAML file, as in configs/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, for example serving_config.server_port=9000; may be repeated",
    )
    parser.add_argument("--check", action="store_true", help="print the effective configuration and exit")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 after a drain, 1 when a stage failed, 2 for a configuration that is wrong."""
    options = parse(arguments)
    try:
        config = load_configuration(options.config, options.set, other_host=options.check)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for line in warnings_of(config):
        print(line, file=sys.stderr)
    if options.check:
        print(config.to_yaml(), end="")
        return 0
    if (warning := key_file_warning(config.pipeline.api_keys_file)) is not None:
        report(f"warning: {warning}")
    try:
        config = fit_to_host(config)
        for remark in prepare_host(config, shapes_of(config, make_runner(config))):
            report(remark)
        return Supervisor(config, lambda: fit_to_host(load_configuration(options.config, options.set))).run()
    except KeysError as error:
        print(f"RingServe can't start: {error}", file=sys.stderr)
        return ConfigurationError.exit_code
    except (ModelError, ipc.IpcError, HostError, PortInUseError, OSError) as error:
        print(f"RingServe can't start: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
