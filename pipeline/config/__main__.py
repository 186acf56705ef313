"""``python -m pipeline.config FILE [--set KEY=VALUE]…`` checks a configuration and prints it as it takes effect."""

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
    """Exit status 0, or 2 when something is wrong. The configuration goes to stdout, remarks to stderr."""
    try:
        configuration = load_configuration(options.file, options.overrides, other_host=not options.this_host)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for remark in remarks(configuration):
        print(remark, file=sys.stderr)
    print(configuration.to_yaml(), end="")
    return 0


def remarks(configuration: Configuration) -> list[str]:
    """What an operator should know although nothing is wrong."""
    lines = [f"warning: {problem}" for problem in configuration.warnings]
    if configuration.ignored_keys:
        lines.append(f"these keys have no effect: {', '.join(configuration.ignored_keys)}")
    return lines


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a configuration file")
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="set a key; repeatable"
    )
    parser.add_argument("--this-host", action="store_true", help="files and CPUs that are missing here are mistakes")


if __name__ == "__main__":
    raise SystemExit(main())
