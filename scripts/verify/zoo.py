"""Folders of all families, and in all the ways that models are stored, served by `ringserve serve DIR`.

    python -m scripts.verify.zoo
    python -m scripts.verify.zoo --only gemma,tiktoken --engine mindspore
    python -m scripts.verify.zoo --list

Every folder has a small random checkpoint; its references are transformers' answers (tests/model/families, made by
`make fixtures-families`). The whole server is started, and asked over HTTP: 24 greedy tokens with log-probabilities,
the prompt as ids and as text, longer than a step and than the families' windows, and several at once. It takes 10 to
20 minutes. The table says which engine served a folder: without --engine that is what the server chooses, OpenVINO
where it is installed and can. Exit status 1 if a folder was not served, or was answered otherwise. With --engine, an
engine may refuse a folder, but not compute it wrongly.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from scripts.lab.arguments import parser, say, write_json
from scripts.lab.errors import ServerError
from scripts.lab.processes import end, exit_when_told, running
from scripts.lab.server import ReadyPipe
from scripts.lab.table import columns, markdown
from scripts.tools.family_checkpoints import Checkpoint, load
from scripts.tools.family_weights import ANSWER
from scripts.verify.folders.answers import Judge, Outcome
from scripts.verify.folders.ways import WAYS, Way

_START_S = 300.0
_FEW = ("pipeline.max_rows=2", "pipeline.token_budget=16")  # graphs to compile, and prompts come in chunks
_ENGINE = re.compile(r"\b((?:mindspore|mindformers|openvino)(?: (?:f32|bf16|int8))?) \w+ \d+ x \d+")
_HEAD = ("folder", "checkpoint", "engine", "tokens", "largest |Δlogprob|", "start, s")


def ways(checkpoints: Sequence[str]) -> list[Way]:
    """One for each family, as transformers stores it, then the others."""
    elsewhere = {way.family for way in WAYS if way.family.endswith(("float16", "bytes"))}
    return [*(Way(name, name) for name in checkpoints if name not in elsewhere), *WAYS]


def chosen(options: argparse.Namespace) -> list[Way]:
    """Ends the program where there is none of that name."""
    every = ways(tuple(load()))
    if options.only is None:
        return every
    words = [word.strip() for word in options.only.split(",")]
    if unknown := [word for word in words if not any(word in way.name for way in every)]:
        sys.exit(f"--only: no folder has {unknown[0]!r} in its name; --list shows them")
    return [way for way in every if any(word in way.name for word in words)]


def visit(way: Way, checkpoint: Checkpoint, place: Path, options: argparse.Namespace) -> Outcome:
    """Write the folder, serve it, ask, stop."""
    outcome = Outcome(way.name, way.family)
    folder = way.write(checkpoint, place)
    sets = [word for override in (*_FEW, *way.settings, *options.set) for word in ("--set", override)]
    engine = ["--engine", options.engine] if options.engine else []
    with ReadyPipe() as pipe:
        program = str(Path(sys.executable).with_name("ringserve"))
        command = [program, "serve", str(folder), "--port", "0", *engine, *sets, *pipe.options]
        log = place / "server.log"
        try:
            with running(command, log, pipe.wait, timeout_s=_START_S, pass_fds=pipe.fds) as server:
                outcome.start_s = server.ready_s
                found = _ENGINE.search(log.read_text(errors="replace"))
                outcome.engine = found[1] if found else "?"
                Judge(server.base_url, checkpoint, way.alphabet(), outcome).run()
                outcome.require(end(server.process) == 0, "the server did not end by itself")
        except ServerError:
            outcome.refused = log.read_text(errors="replace").strip().rpartition("\n")[2]
        except (OSError, KeyError, ValueError) as error:
            outcome.wrong.append(f"no answer: {error!r}")
    return outcome


def failed(outcome: Outcome, engine: str | None) -> bool:
    """A named engine may say by itself that it does not serve a family."""
    refused = bool(outcome.refused) and (engine is None or "Error" in outcome.refused)
    return bool(outcome.wrong) or refused


def lines(outcomes: Sequence[Outcome]) -> Iterator[tuple[object, ...]]:
    for it in outcomes:
        if it.refused:
            yield it.name, it.family, "refused", None, None, None
        else:
            tokens, difference, start = f"{it.tokens}/{ANSWER}", f"{it.difference:.1e}", f"{it.start_s:.0f}"
            yield it.name, it.family, it.engine, tokens, difference, start


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    line = parser(__doc__)
    line.add_argument("--only", metavar="TEXT,…", help="folders that have one of these in their name")
    line.add_argument("--engine", metavar="NAME", help="pipeline.runner.kind; default: what the server chooses")
    line.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    line.add_argument("--list", action="store_true", help="print the folders' names, and exit")
    line.add_argument("--markdown", action="store_true", help="the table as Markdown")
    line.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return line.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    todo, checkpoints = chosen(options), load()
    if options.list:
        print("\n".join(way.name for way in todo))
        return 0
    exit_when_told()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="ringserve-zoo-") as directory:
        os.environ["XDG_CACHE_HOME"] = directory
        for number, way in enumerate(todo):
            place = Path(directory, str(number))
            place.mkdir()
            outcome = visit(way, checkpoints[way.family], place, options)
            say(f"{number + 1}/{len(todo)} {way.name}: {outcome.refused or '; '.join(outcome.wrong) or 'ok'}")
            outcomes.append(outcome)
    table = list(lines(outcomes))
    print(markdown(_HEAD, table) if options.markdown else columns(_HEAD, table, left=3))
    write_json(options.json, [asdict(it) for it in outcomes])
    bad = [it for it in outcomes if failed(it, options.engine)]
    for it in bad:
        print(f"WRONG: {it.name}: {it.refused or '; '.join(it.wrong)}")
    refused = sum(bool(it.refused) for it in outcomes)
    print(f"{len(outcomes)} folders, {refused} refused, {len(bad)} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
