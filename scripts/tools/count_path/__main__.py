"""How much code one streamed completion runs through: files and lines, over all four processes.

    python -m scripts.tools.count_path                                configs/emulated_910b.yaml, eight tokens
    python -m scripts.tools.count_path --tokens 100 --files           which files, and how many lines of each

Every line that Python executes between the request and its last token is noted (sys.settrace), in `pipeline`, `ipc`
and `model`; a request before it has run what runs only once. What loops do while they wait is among them; code in C,
and libraries, are not. Lines of a file that are executed in several processes count once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from pipeline.wire.topology import STAGES
from scripts.lab.errors import BenchError
from scripts.lab.http import Client
from scripts.lab.paths import ROOT
from scripts.lab.processes import exit_when_told
from scripts.lab.server import launched

INJECTED = Path(__file__).parent / "inject"
ROOMS = ("pipeline", "ipc", "model")
WRITTEN_S = 20.0
Lines = dict[str, set[int]]


def main() -> int:
    """Exit status: 0, or 1 when the server did not do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "emulated_910b.yaml", metavar="FILE")
    parser.add_argument("--tokens", type=int, default=8, help="of the completion; default 8")
    parser.add_argument("--files", action="store_true", help="also list the files")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of text")
    options = parser.parse_args()
    exit_when_told()
    with tempfile.TemporaryDirectory() as folder:
        try:
            lines = trace(options.config, options.tokens, Path(folder))
        except (BenchError, OSError) as error:
            print(error, file=sys.stderr)
            return 1
    figures = count(lines)
    print(json.dumps(figures, indent=1) if options.json else as_text(figures, files=options.files))
    return 0


def trace(config: Path, tokens: int, folder: Path) -> dict[str, Lines]:
    """Executed lines by file and stage. Raises BenchError, OSError."""
    flag_file = folder / "flag"
    flag_file.write_bytes(b"\0")
    os.environ |= {
        "RINGSERVE_COUNT_PATH": str(flag_file), "RINGSERVE_COUNT_ROOT": str(ROOT), "PYTHONPATH": str(INJECTED),
        "RINGSERVE_COUNT_STAGES": " ".join(STAGES),
    }  # fmt: skip
    with (
        flag_file.open("r+b") as file,
        launched(config, ["pipeline.log.level=warning"], folder / "log") as running,
    ):
        flag = mmap.mmap(file.fileno(), 1)
        asyncio.run(_complete(running.base_url, tokens))
        flag[0] = 1
        asyncio.run(_complete(running.base_url, tokens))
        flag[0] = 2
        asyncio.run(_complete(running.base_url, tokens))  # each stage writes at its next line
        return {stage: _read(folder / f"flag.{stage}.json") for stage in STAGES}


async def _complete(base_url: str, tokens: int) -> None:
    client = Client(base_url)
    body = {"prompt": "What is a ring buffer?", "max_tokens": tokens, "stream": True, "ignore_eos": True}
    reply = await client.send(client.request("POST", "/v1/completions", json.dumps(body).encode()))
    client.close()
    if reply.status != 200 or b"[DONE]" not in reply.body:
        raise BenchError(f"status {reply.status}: {reply.body[-500:].decode(errors='replace')}")


def _read(file: Path) -> Lines:
    deadline = time.monotonic() + WRITTEN_S
    while time.monotonic() < deadline:
        try:
            noted = json.loads(file.read_text())
            break
        except (OSError, ValueError):
            time.sleep(0.05)
    else:
        raise BenchError(f"{file.name} was not written within {WRITTEN_S:g} s")
    found: Lines = defaultdict(set)
    for name, line in noted:
        path = str(Path(name).relative_to(ROOT))
        if path.startswith(tuple(f"{room}/" for room in ROOMS)):
            found[path].add(line)
    return found


def count(lines: dict[str, Lines]) -> dict[str, Any]:
    every: Lines = defaultdict(set)
    for found in lines.values():
        for path, numbers in found.items():
            every[path] |= numbers
    by_stage = {
        stage: {"files": len(found), "executed_lines": sum(map(len, found.values()))}
        for stage, found in lines.items()
    }
    return {
        "files": len(every),
        "executed_lines": sum(map(len, every.values())),
        "lines_of_these_files": sum(len((ROOT / path).read_text().splitlines()) for path in every),
        "by_stage": by_stage,
        "by_file": {path: len(numbers) for path, numbers in sorted(every.items())},
    }


def as_text(figures: dict[str, Any], *, files: bool) -> str:
    lines = [
        f"one streamed completion: {figures['files']} files, {figures['executed_lines']} executed lines "
        f"(the files have {figures['lines_of_these_files']})"
    ]
    by_stage, by_file = figures["by_stage"], figures["by_file"]
    assert isinstance(by_stage, dict)
    assert isinstance(by_file, dict)
    lines += [
        f"  {name:<11} {one['files']:3} files {one['executed_lines']:5} lines" for name, one in by_stage.items()
    ]
    if files:
        lines += [f"  {number:4} {path}" for path, number in by_file.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
