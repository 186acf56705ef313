"""C and C++ on aarch64, emulated: cross-compile the rings' stress harness and the operators' check, and run them
under qemu-aarch64.

`make test-aarch64`; needs Debian's g++-aarch64-linux-gnu and qemu-user. It shows that the core compiles for aarch64
without a warning and that its layout, atomics and futex calls work there, and likewise the operators of model/csrc,
whose vectors are NEON's there. It does not show weak ordering: emulation on x86 keeps x86's order.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.lab.paths import ROOT
from scripts.verify import operators

SOURCE = ROOT / "tests" / "ipc" / "native" / "ring_stress.c"
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
RINGS = ("slots 1 1", "slots 1 4", "slots 3 4", "bytes 1 256", "bytes 2 64")
SLICES_US = ("200", "3600000000")  # slices that expire all the time; none that ever does
MESSAGES = "5000"


def run_all(program: Path) -> bool:
    """One line per ring; whether every byte arrived and no wake-up was lost."""
    good = True
    for ring in RINGS:
        for slice_us in SLICES_US:
            command = [EMULATOR, str(program), *ring.split(), MESSAGES, slice_us, "0", "1"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
                good &= done.returncode == 0
                result = (done.stdout + done.stderr).strip()
            except subprocess.TimeoutExpired:
                good, result = False, "HANGS"
            print(f"aarch64  {ring:12} slice {slice_us:>10} us  {result}", flush=True)
    return good


def main() -> int:
    missing = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
    if missing:
        print(f"not run: {' and '.join(missing)} not found", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="aarch64-") as name:
        program = Path(name) / "ring_stress"
        command = [COMPILER, *FLAGS, f"-I{ROOT / 'ipc' / 'core'}", "-o", str(program), str(SOURCE)]
        subprocess.run(command, check=True)
        good = run_all(program)
    return 0 if operators.run_all(operators.AARCH64) and good else 1


if __name__ == "__main__":
    sys.exit(main())
