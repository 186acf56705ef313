"""Compares saved logits of two runs: the accuracy check of llm-serving's load (its task 2).

    python -m scripts.tools.check_logits --base DIR --new DIR [--atol 5e-3]

Both directories hold ``{unix time}_{ids}_{position}.npy``, float32 ``[batch, vocab]``. Files of the same
``{ids}_{position}`` are sorted by time and compared in pairs: ``np.allclose(new, base, atol=atol)``, the
relative tolerance being numpy's 1e-5 of the base. A file without a counterpart, or of another shape, fails.

Exit code 0: all pairs agree. 1: something differs or is missing. 2: wrong usage or an unreadable file.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.lab.arguments import parser, within

RTOL = 1e-5  # numpy's default, which the known checker uses
FILE_NAME = re.compile(r"(?P<time>\d+(?:\.\d+)?)_(?P<ids>[^_]*)_(?P<position>\d+)\.npy", re.ASCII)
SHOWN = 20  # failures listed one by one

Logits = NDArray[np.float32]
Group = tuple[str, int]  # ids, position


class UnreadableError(Exception):
    """The input is not what this script reads."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The worst element of a pair of files."""

    text: str
    size: float  # NaN where only one side is a number
    elements: int  # beyond the tolerance

    @property
    def badness(self) -> tuple[bool, float]:
        return self.elements > 0, np.inf if np.isnan(self.size) else self.size


def find_groups(directory: Path) -> Mapping[Group, list[Path]]:
    """Files by ids and position, each group in order of time."""
    if not directory.is_dir():
        raise UnreadableError(f"{directory} is not a directory")
    found: defaultdict[Group, list[tuple[Decimal, Path]]] = defaultdict(list)
    for path in sorted(directory.glob("*.npy")):
        match = FILE_NAME.fullmatch(path.name)
        if match is None:
            raise UnreadableError(f"{path} is not named {{unix time}}_{{ids}}_{{position}}.npy")
        found[match["ids"], int(match["position"])].append((Decimal(match["time"]), path))
    return {group: [path for _, path in sorted(files)] for group, files in sorted(found.items())}


def load(path: Path) -> Logits:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableError(f"{path} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 2:
        found = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise UnreadableError(f"{path} holds {found}, expected float32 [batch, vocab]")
    return array


def compare(base: Logits, new: Logits, atol: float, where: str) -> Difference | None:
    """The worst element of two arrays of one shape, whether or not it is within the tolerance."""
    if base.size == 0:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(new.astype(np.float64) - base)
    distance[new == base] = 0  # infinities of one sign
    beyond = ~np.isclose(new, base, rtol=RTOL, atol=atol)
    # what is beyond the tolerance first, then by distance; NaN is the farthest
    rank = np.where(np.isnan(distance), np.inf, distance)
    candidates = np.where(beyond, rank, -1.0) if beyond.any() else rank
    row, token = np.unravel_index(int(candidates.argmax()), candidates.shape)
    old, now, size = float(base[row, token]), float(new[row, token]), float(distance[row, token])
    text = f"{where}, row {row}, token {token}: base {old:.7g}, new {now:.7g}, difference {size:.3g}"
    return Difference(text, size, int(beyond.sum()))


class Report:
    """Collects results and prints them."""

    def __init__(self, atol: float) -> None:
        self.atol = atol
        self.pairs = 0
        self.failures: list[str] = []
        self.worst: Difference | None = None

    def add(self, difference: Difference | None) -> None:
        self.pairs += 1
        if difference is None:
            return
        if difference.elements:
            self.failures.append(f"{difference.text} ({difference.elements} elements beyond the tolerance)")
        if self.worst is None or difference.badness > self.worst.badness:
            self.worst = difference

    def print(self) -> None:
        for failure in self.failures[:SHOWN]:
            print(f"FAIL  {failure}")
        if len(self.failures) > SHOWN:
            print(f"FAIL  … and {len(self.failures) - SHOWN} more")
        print(f"compared {self.pairs} pairs of files, tolerance {self.atol:g} + {RTOL:g} |base|")
        if self.worst is not None:
            print(f"worst difference {self.worst.size:.3g}: {self.worst.text}")
        print(f"{len(self.failures)} failures" if self.failures else "all logits agree")


def pairs(
    base: Mapping[Group, list[Path]], new: Mapping[Group, list[Path]], report: Report
) -> Iterator[tuple[Group, Path, Path]]:
    """Files that belong together; what has no counterpart goes to the report."""
    for group in sorted({*base, *new}):
        ours, theirs = base.get(group, []), new.get(group, [])
        for extra in ours[len(theirs) :]:
            report.failures.append(f"{extra.name}: no counterpart in the new run")
        for extra in theirs[len(ours) :]:
            report.failures.append(f"{extra.name}: no counterpart in the base run")
        yield from ((group, *both) for both in zip(ours, theirs, strict=False))


def check(base: Path, new: Path, atol: float) -> Report:
    base_groups, new_groups = find_groups(base), find_groups(new)
    if not base_groups:
        raise UnreadableError(f"{base} holds no .npy files")
    report = Report(atol)
    for (_, position), base_file, new_file in pairs(base_groups, new_groups, report):
        ours, theirs = load(base_file), load(new_file)
        name = f"{base_file.name} against {new_file.name}"
        if ours.shape != theirs.shape:
            report.failures.append(f"{name}: shape {list(theirs.shape)}, expected {list(ours.shape)}")
            continue
        report.add(compare(ours, theirs, atol, f"{name}: position {position}"))
    return report


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--base", type=Path, required=True, help="directory of the run to compare with")
    options.add_argument("--new", type=Path, required=True, help="directory of the run to check")
    options.add_argument("--atol", type=within(0), default=5e-3, help="absolute tolerance (default 5e-3)")
    arguments = options.parse_args()
    try:
        report = check(arguments.base, arguments.new, arguments.atol)
    except UnreadableError as error:
        print(f"check_logits: {error}", file=sys.stderr)
        return 2
    report.print()
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
