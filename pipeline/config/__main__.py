"""``python -m pipeline.config FILE [--set KEY=VALUE]…``: check a configuration and print the effective one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import Configuration, ConfigurationError, load_configuration


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.config", description=run.__doc__)
    add_options(parser)
    return run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Check a configuration and print the effective one to stdout, warnings to stderr. Exit status 2: it is wrong."""
    try:
        configuration = load_configuration(options.file, options.overrides, other_host=not options.this_host)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for warning in warnings_of(configuration):
        print(warning, file=sys.stderr)
    print(configuration.to_yaml(), end="")
    return 0


def warnings_of(configuration: Configuration) -> list[str]:
    """Lines for the operator about a configuration that can be used."""
    lines = [f"warning: {problem}" for problem in configuration.warnings]
    if configuration.ignored_keys:
        lines.append(f"these keys have no effect: {', '.join(configuration.ignored_keys)}")
    return lines


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a configuration file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override a key; may be repeated",
    )
    parser.add_argument(
        "--this-host", action="store_true", help="files and CPUs that this host lacks are errors, not warnings"
    )


if __name__ == "__main__":
    raise SystemExit(main())
