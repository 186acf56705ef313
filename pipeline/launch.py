"""``python -m pipeline.launch DIR``, or ``--config FILE``: starts the four stages and holds them together; and the
``ringserve`` command, which does that and what belongs to it.

The launcher makes the segments, the rings and the listening sockets, starts the stages, reports what they do until
they are ready, and supervises them: one that dies is started anew, and all get fresh rings. Whatever ends it, nothing
is left behind: names in /dev/shm are gone as soon as segments are made, and no stage outlives the launcher.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import ipc
from model.errors import ModelError
from pipeline.config import Configuration, ConfigurationError
from pipeline.config import __main__ as config_command
from pipeline.host.cpu_placement import fit_to_host
from pipeline.host.facts import HostError, plan_shared_memory, prepare_host
from pipeline.launcher import Supervisor, certificates, report
from pipeline.launcher.api_keys import API_KEY, KeysError, key_file_warning
from pipeline.launcher.listening import PortInUseError
from pipeline.launcher.options import add_node_options, add_options, add_router_options, load
from pipeline.launcher.readiness import Readiness
from pipeline.launcher.tether import tether
from pipeline.launcher.tokenizer_check import TokenizerCheck
from pipeline.link.tls import CertificateError, context_of
from pipeline.runtime.adapters import adapter_fingerprints
from pipeline.runtime.engines import facts_of, shapes_with
from pipeline.runtime.stage import describe_failure
from pipeline.runtime.vocabulary import VocabularyFile
from pipeline.runtime.weights import describe_weights, identify_weights


def run(options: argparse.Namespace) -> int:
    """Exit status: 0 after a drain, 1 when a stage failed, 2 for a configuration that is wrong."""
    try:
        return _run(options)
    except MemoryError as error:
        print(f"RingServe can't start: {describe_failure(error)}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    try:
        config = load(options, other_host=options.check or options.print_config)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for line in config_command.warnings_of(config):
        print(line, file=sys.stderr)
    if options.check or options.print_config:
        return _show(config, options)
    if options.api_key is not None:
        os.environ[API_KEY] = options.api_key  # of this process: stages do not get it
    if options.exit_with_fd is not None:
        tether(options.exit_with_fd)
    try:
        _check_certificates(config)
        return _serve(config, options)
    except (KeysError, CertificateError) as error:
        print(f"RingServe can't start: {error}", file=sys.stderr)
        return ConfigurationError.exit_code
    except (ModelError, ipc.IpcError, HostError, PortInUseError, OSError) as error:
        print(f"RingServe can't start: {error}", file=sys.stderr)
        return 1


def _show(config: Configuration, options: argparse.Namespace) -> int:
    """The configuration alone on stdout, to be kept; what it was made of on stderr, or in comments. Returns 1 for
    weights that can't be loaded."""
    if options.print_config:
        print(*[f"# {choice}" for choice in config.choices], config.to_yaml(), sep="\n", end="")
        return 0
    remarks = [*_tokenizer_remarks(config), *_adapter_remarks(config)]
    status = _check_weights(config, remarks)
    print(*config.choices, _shared_memory(config), *remarks, sep="\n", file=sys.stderr)
    print(config.to_yaml(), end="")
    return status


def _check_weights(config: Configuration, remarks: list[str]) -> int:
    try:
        if (line := describe_weights(config)) is not None:
            remarks.append(line)
    except (ModelError, OSError) as error:
        remarks.append(f"RingServe can't start: {error}")
        return 1
    return 0


def _shared_memory(config: Configuration) -> str:
    """How much the server would need, and where it would be. Model files may be on another host."""
    try:
        return plan_shared_memory(config, shapes_with(config, facts_of(config))).text
    except (ModelError, OSError) as error:
        return f"warning: {error} (so how much shared memory is needed is not known)"


def _tokenizer_remarks(config: Configuration) -> list[str]:
    try:
        with TokenizerCheck(config) as check:
            return check.require()
    except ModelError as error:
        return [f"warning: {error}"]


def _adapter_remarks(config: Configuration) -> list[str]:
    try:
        adapter_fingerprints(config)
    except (ModelError, OSError) as error:
        return [f"warning: {error}"]
    return []


def _check_certificates(config: Configuration) -> None:
    """Of a node or a router. Raises CertificateError."""
    link, routes = config.pipeline.link, config.pipeline.is_router
    if (routes or link.listen) and link.ca and link.certificate and link.key:
        context_of(link.ca, link.certificate, link.key, routes=routes)


def _serve(config: Configuration, options: argparse.Namespace) -> int:
    if (warning := key_file_warning(config.pipeline.api_keys_file)) is not None:
        report(f"warning: {warning}")
    chosen = {choice.key: choice.value for choice in config.choices}
    fitted = [fit_to_host(config, replica) for replica in range(config.pipeline.replicas)]
    config = fitted[0]
    with contextlib.closing(VocabularyFile()) as vocabulary:
        with TokenizerCheck(config, vocabulary) as check:
            fingerprints = adapter_fingerprints(config)
            for remark in prepare_host(config, shapes_with(config, facts_of(config))):
                report(remark)
            for remark in check.require():
                report(remark)
        for choice in config.choices:
            report(str(choice))
        reread = lambda: fit_to_host(load(options, known=chosen))  # noqa: E731
        readiness = Readiness.from_environment(options.ready_fd, os.environ)
        server = Supervisor(
            config,
            reread,
            readiness,
            fitted=fitted,
            fingerprints=fingerprints,
            vocabulary=vocabulary,
            weights=_weights_id(config),
        )
        return server.run()


def _weights_id(config: Configuration) -> str:
    """Empty for what can't be read: inference says why, when it loads them."""
    with contextlib.suppress(ModelError, OSError):
        return identify_weights(config)
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.launch", description="Start RingServe.")
    add_options(parser)
    return run(parser.parse_args(arguments))


def ringserve(arguments: Sequence[str] | None = None) -> int:
    """The ``ringserve`` command."""
    parser = argparse.ArgumentParser(
        prog="ringserve",
        description="An LLM server that adds nothing to the model.",
        epilog="Benchmarks and checks (scripts/) need a checkout of the project; README.md names them.",
    )
    parser.add_argument("--version", action="version", version=f"ringserve {version('ringserve')}")
    from pipeline.doctor import __main__ as doctor_command  # a server does without it

    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor, config = doctor_command, config_command
    for name, add, start, what in (
        ("serve", add_options, run, "serve a model's folder, or what a configuration describes"),
        ("node", add_node_options, run, "the same, for routers on other machines in place of clients"),
        ("router", add_router_options, run, "serve what nodes on other machines compute"),
        ("certificates", certificates.add_options, certificates.run, "make certificates of nodes and a router"),
        ("doctor", doctor.add_options, doctor.run, "report what this host lacks, for a configuration or in general"),
        ("config", config.add_options, config.run, "check a configuration and print it as it takes effect"),
    ):
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        add(command)
        command.set_defaults(run=start)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
