"""``python -m pipeline.launcher.weights FD``: looks at a folder of weights, beside the launcher, which never waits.
FD holds what `CheckProcess` has written there; the result is JSON on standard output."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from pipeline.config import load_configuration
from pipeline.launcher.child import anonymous_file
from pipeline.launcher.weights.check import RefusedError, examine
from pipeline.runtime.stage import die_with_parent

_NICE = 10  # no stage is to wait for it


def main() -> None:
    die_with_parent()
    result = os.dup(1)
    os.dup2(2, 1)  # libraries may print what they like: it goes to the log
    os.nice(_NICE)
    asked = json.loads(os.pread(int(sys.argv[1]), 1 << 24, 0))
    with anonymous_file("configuration", asked["configuration"].encode()) as fd:
        try:
            found = asdict(examine(load_configuration(f"/proc/self/fd/{fd}"), asked["folder"]))
        except RefusedError as error:
            found = {"refused": str(error)}
    with open(result, "w") as pipe:  # noqa: PTH123 - a descriptor
        json.dump(found, pipe)


if __name__ == "__main__":
    main()
