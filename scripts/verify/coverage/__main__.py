"""Runs a command, and says which modules it reaches too little of.

    python -m scripts.verify.coverage [--json FILE] COMMAND…

The status is the command's, or 1 when a module is below the floor, or an exception has become needless (floor.py).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.lab.arguments import parser, write_json
from scripts.lab.paths import ROOT
from scripts.verify.coverage.floor import EXCEPTIONS, complaints
from scripts.verify.coverage.measure import PACKAGES, Measured, environment


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--json", type=Path, metavar="FILE", help="percent of each module's statements")
    line.add_argument("command", nargs=argparse.REMAINDER)
    given = line.parse_args()
    with tempfile.TemporaryDirectory(prefix="ringserve-coverage-") as folder:
        measured = Measured(ROOT, PACKAGES, Path(folder))
        status = subprocess.run(given.command, env=os.environ | environment(Path(folder)), check=False).returncode
        percent = measured.percent()
    write_json(given.json, percent)
    if status:
        return status
    found = list(complaints(percent, EXCEPTIONS))
    lowest = min(percent.keys() - EXCEPTIONS.keys(), key=lambda name: percent[name])
    fine = f"{len(percent)} modules, {len(EXCEPTIONS)} exceptions; least: {lowest}, {percent[lowest]:.0f} %"
    print(*found or [fine], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
