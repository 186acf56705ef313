"""``python -m pipeline.doctor [--config FILE] [--set KEY=VALUE]… [--json]``: what to change on this host."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter

from model.errors import ModelError
from pipeline.config import ConfigurationError, load_configuration
from pipeline.doctor.accuracy import check_accuracy
from pipeline.doctor.examine import examine
from pipeline.doctor.finding import Finding, Level, fail
from pipeline.doctor.subject import Host, Plan
from pipeline.host.npu_errors import explain

_WIDTH = 10


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.doctor",
        description="Check whether this host can run a configuration. Exit status 1: it can't.",
    )
    add_options(parser)
    return run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or 1 when something can't work."""
    if options.explain is not None:
        return _explain(sys.stdin.read() if options.explain == "-" else options.explain)
    plan, mistakes = _plan(options.config, options.set)
    found = mistakes + examine(Host(), plan)
    if options.accuracy:
        found += check_accuracy(plan) if plan is not None else [_no_plan()]
    print(as_json(found, options.config) if options.json else as_text(found, options.config))
    return 1 if any(finding.level is Level.FAIL for finding in found) else 0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="the configuration; without it, sizes, ports and files are not checked"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key; may be repeated"
    )
    parser.add_argument(
        "--accuracy",
        action="store_true",
        help="run golden prompts on the configured engine and on the CPU's reference, and compare logits",
    )
    parser.add_argument(
        "--explain",
        metavar="TEXT",
        help="what Ascend's error codes in a text mean (-: standard input); checks nothing",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def _no_plan() -> Finding:
    return fail("accuracy", "accuracy needs a configuration that is right", "--config FILE")


def _explain(text: str) -> int:
    lines = explain(text)
    print("\n".join(lines) or "no error code that is known is in this text")
    return 0 if lines else 1


def _plan(path: str | None, overrides: list[str]) -> tuple[Plan | None, list[Finding]]:
    if path is None:
        return None, []
    try:
        config = load_configuration(path, overrides, other_host=True)
    except ConfigurationError as error:
        return None, [_mistake(problem) for problem in error.problems]
    missing = [_mistake(problem) for problem in config.warnings]
    try:
        return Plan.of(config), missing
    except ModelError as error:
        return None, missing or [_mistake(error)]


def _mistake(what: object) -> Finding:
    return fail("config", str(what), "correct the file, or copy what it names to this host")


def as_json(found: list[Finding], config: str | None) -> str:
    passed = all(finding.level is not Level.FAIL for finding in found)
    findings = [dataclasses.asdict(finding) for finding in found]
    return json.dumps({"config": config, "ok": passed, "findings": findings}, indent=1, ensure_ascii=False)


def as_text(found: list[Finding], config: str | None) -> str:
    counts = Counter(finding.level for finding in found)
    what = f"this host for {config}" if config else "this host (add --config FILE to check sizes, ports and files)"
    lines = [f"RingServe doctor: checks of {what}", ""]
    topics = list(dict.fromkeys(finding.topic for finding in found))
    for finding in sorted(found, key=lambda finding: topics.index(finding.topic)):
        lines.append(f"{finding.level.value.rjust(4)}  {finding.topic.ljust(_WIDTH)} {finding.text}")
        lines += [f"{'':{_WIDTH + 7}}→ {finding.fix}"] if finding.fix else []
    summary = f"{counts[Level.OK]} ok, {counts[Level.WARN]} warnings, {counts[Level.FAIL]} failures"
    return "\n".join([*lines, "", summary])


if __name__ == "__main__":
    sys.exit(main())
