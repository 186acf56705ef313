"""What was measured so far, in a file: a run that was interrupted goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.lab.errors import BenchError

Record = dict[str, Any]


class Journal:
    """Records, one a line: `start` (the first one of a peer), `round` (of servers that took turns) and `server` (what
    was seen of one beside). `plan` is what they depend on."""

    def __init__(self, file: Path, plan: Mapping[str, Any], *, resume: bool) -> None:
        """Raises BenchError where there is no run of this plan to resume."""
        self._file = file
        self.records: list[Record] = []
        plan = json.loads(json.dumps(plan))
        if not resume:
            file.write_text(json.dumps(plan) + "\n", encoding="utf-8")
            return
        try:
            head, *lines = file.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise BenchError(f"--resume: there is no {file}; leave --resume out") from error
        if (then := json.loads(head)) != plan:
            changed = sorted(key for key in plan | then if plan.get(key) != then.get(key))
            raise BenchError(f"--resume: the run in {file} had other settings ({', '.join(changed)})")
        self.records = [json.loads(line) for line in lines]

    def add(self, kind: str, record: Record) -> None:
        self.records.append({"kind": kind} | record)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(self.records[-1]) + "\n")

    def of(self, kind: str) -> list[Record]:
        return [record for record in self.records if record["kind"] == kind]

    def rounds_of(self, names: list[str]) -> int:
        return sum(record["set"] == names for record in self.of("round"))
