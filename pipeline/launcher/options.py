"""The options of ``ringserve serve``: which model or file, and settings that have an option of their own."""

from __future__ import annotations

import argparse
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pipeline.config import Configuration, ConfigurationError, Override, Problem, load_configuration, load_folder
from pipeline.launcher.certificates import link_files

_FIRST_FREE_FD = 3  # those below are stdin, stdout and stderr

_PATHS = ("/", "./", "../", "~")  # how a folder begins that is no name

_SETTINGS: Final = (
    (
        "--max-model-len",
        "N",
        "longest sequence, prompt and answer together, in tokens",
        "model_config.max_generate_length",
    ),
    ("--host", "ADDRESS", "address to listen on", "pipeline.hosts"),
    ("--port", "N", "port to listen on; 0: any free one, which is printed", "serving_config.server_port"),
    ("--engine", "NAME", "what runs the model", "pipeline.runner.kind"),
    (
        "--tool-format",
        "NAME",
        "how the model writes calls of tools, where its chat template does not show it",
        "pipeline.tool_format",
    ),
)
"""Option, what it takes, its meaning, and the setting that it is."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="DIR",
        help="a model's folder as it comes from the Hugging Face Hub, or of its cache; everything else is derived",
    )
    parser.add_argument("--config", metavar="FILE", help="a YAML file, as in configs/, in place of a folder")
    for option, value, meaning, key in _SETTINGS:
        parser.add_argument(option, metavar=value, help=f"{meaning}; the same as --set {key}={value}")
    parser.add_argument(
        "--served-model-name",
        action="append",
        default=[],
        metavar="NAME",
        help="name of the model in the APIs; repeated: more names of it",
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="a LoRA adapter, a folder as PEFT writes it: with a NAME, which requests give as their model, beside "
        "the model, and repeatable; a DIR alone is merged into the weights. One with = in it is written ./DIR",
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="a key that clients must have. Others on this host can see it among the processes: better in the "
        "environment, RINGSERVE_API_KEY",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, for example pipeline.max_rows=4; may be repeated",
    )
    _add_other_modes(parser)
    parser.add_argument(
        "--ready-fd",
        type=_open_descriptor,
        metavar="N",
        help="an inherited descriptor: gets a line of JSON with the URLs when the server is ready, and is closed",
    )
    parser.add_argument(
        "--exit-with-fd",
        type=_readable_descriptor,
        metavar="N",
        help="an inherited descriptor, of a pipe or a socket: when its other end is closed, the server drains and "
        "ends, as with SIGTERM. So it ends with the program that started it, however that does",
    )


def _add_other_modes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check",
        action="store_true",
        help="print the effective configuration, and on stderr what was chosen and the shared memory, and exit",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print a complete configuration file that starts the same server, and exit",
    )


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """Of ``ringserve node``: those of ``serve``, and its own."""
    add_options(parser)
    parser.add_argument(
        "--listen",
        default="0.0.0.0:8836",
        metavar="HOST:PORT",
        help="where routers link to (default: %(default)s); the same as --set pipeline.link.listen=HOST:PORT",
    )
    _add_certificates(parser, "node")


def add_router_options(parser: argparse.ArgumentParser) -> None:
    """Of ``ringserve router``: those of ``serve``, and its own."""
    add_options(parser)
    parser.add_argument(
        "--nodes",
        metavar="HOST:PORT,…",
        help="where nodes listen; the same as --set pipeline.nodes=[HOST:PORT,…]",
    )
    parser.add_argument(
        "--max-nodes",
        type=int,
        metavar="N",
        help="nodes that it can have at a time, more of which may come while it runs; the same as "
        "--set pipeline.max_nodes=N",
    )
    _add_certificates(parser, "router")


def _add_certificates(parser: argparse.ArgumentParser, role: str) -> None:
    parser.add_argument(
        "--certificates",
        metavar="DIR",
        type=Path,
        help=f"a folder with ca.pem, {role}.pem and {role}.key, as ringserve certificates makes them",
    )
    parser.set_defaults(role=role)


def load(
    options: argparse.Namespace, *, other_host: bool = False, known: Mapping[str, Any] = MappingProxyType({})
) -> Configuration:
    """The configuration that these options ask for. ``known``: what ``auto`` came to before. Raises
    ConfigurationError."""
    if bool(options.folder) == bool(options.config):
        what = "a folder and --config: give either" if options.folder else "nothing to serve: give"
        raise ConfigurationError([Problem("serve", 0, f"{what} a model's folder, or --config FILE")])
    overrides = overrides_of(options)
    if options.config:
        config = load_configuration(options.config, overrides, other_host=other_host, known=known)
    else:
        config = load_folder(Path(options.folder), overrides, other_host=other_host, known=known)
    if getattr(options, "role", "") == "router" and not config.pipeline.is_router:
        raise ConfigurationError([Problem("router", 0, "no nodes: give --nodes HOST:PORT,…, or --max-nodes N")])
    return config


def overrides_of(options: argparse.Namespace) -> list[str | Override]:
    """Those with an option of their own go before ``--set``."""
    return [*options.set, *_own(options)]


def _own(options: argparse.Namespace) -> Iterator[Override]:
    for option, _, _, key in _SETTINGS:
        text = getattr(options, option.removeprefix("--").replace("-", "_"))
        if text is not None:
            yield Override(key, int(text) if text.isdecimal() and len(text) < 20 else text, f"{option} {text}")
    if names := options.served_model_name:
        option = f"--served-model-name {names[0]}"
        yield Override("pipeline.model_name", names[0], option)
        yield Override("pipeline.model_aliases", names[1:], option)
    yield from _adapters(options.lora)
    yield from _links(options)


def _links(options: argparse.Namespace) -> Iterator[Override]:
    """Of a node or a router."""
    if listen := getattr(options, "listen", None):
        yield Override("pipeline.link.listen", listen, f"--listen {listen}")
    if nodes := getattr(options, "nodes", None):
        yield Override("pipeline.nodes", nodes.split(","), f"--nodes {nodes}")
    if (most := getattr(options, "max_nodes", None)) is not None:
        yield Override("pipeline.max_nodes", most, f"--max-nodes {most}")
    folder: Path | None = getattr(options, "certificates", None)
    if folder is not None:
        for key, file in link_files(folder.absolute(), options.role).items():
            yield Override(key, str(file), f"--certificates {folder}")


def _adapters(given: Sequence[str]) -> Iterator[Override]:
    """Raises ConfigurationError for one that is given twice."""
    named: dict[str, str] = {}
    merged: list[str] = []
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or text.startswith(_PATHS):
            merged.append(text)
        elif name in named:
            raise _refused(text, f"{name} is {named[name]} already; choose another name")
        else:
            named[name] = folder
    if len(merged) > 1:
        raise _refused(
            merged[1], f"{merged[0]} is merged already; give both a name, NAME=DIR, to have them beside the model"
        )
    if merged:
        yield Override("pipeline.lora.merged", merged[0], f"--lora {merged[0]}")
    if named:
        option = " ".join(f"--lora {name}={folder}" for name, folder in named.items())
        yield Override("pipeline.lora.adapters", named, option)


def _refused(adapter: str, why: str) -> ConfigurationError:
    return ConfigurationError([Problem(f"--lora {adapter}", 0, why)])


def _open_descriptor(text: str) -> int:
    return _descriptor(text, os.O_RDONLY, "is open for reading; writing is needed")


def _readable_descriptor(text: str) -> int:
    return _descriptor(text, os.O_WRONLY, "is open for writing; reading is needed")


def _descriptor(text: str, wrong_mode: int, why: str) -> int:
    if not text.isdecimal() or int(text) < _FIRST_FREE_FD:
        raise argparse.ArgumentTypeError(f"a descriptor from {_FIRST_FREE_FD} on expected, not {text!r}")
    try:
        flags = fcntl.fcntl(int(text), fcntl.F_GETFL)
    except (OSError, OverflowError):
        raise argparse.ArgumentTypeError(f"descriptor {text} is not open") from None
    if flags & os.O_ACCMODE == wrong_mode:
        raise argparse.ArgumentTypeError(f"descriptor {text} {why}")
    return int(text)
