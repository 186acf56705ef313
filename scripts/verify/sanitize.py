"""Run tests of `ipc` on an extension built with AddressSanitizer and UndefinedBehaviorSanitizer, and before them the
operators of `model/csrc` in the same way, and with ThreadSanitizer (operators.py).

`python -m scripts.verify.sanitize [pytest arguments]`; without arguments all of tests/ipc but the tests of cost,
which measure, and those that start sanitizers themselves. The sanitized build lies in a directory of its own, with a
copy of the package and of its tests, and leaves the installed extension alone. Every finding ends the process that
made it, in children too. Leaks are not looked for: CPython itself keeps memory to the end. Needs gcc.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from scripts.lab.paths import ROOT
from scripts.verify import operators

BUILD = ROOT / "build" / "sanitize"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]
MODULE = ["-std=c11", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden", "-DPy_LIMITED_API=0x030B0000"]
NOT_HERE = ("test_cost.py", "test_native.py", "test_sanitized.py", "test_verify.py")


def runtime(name: str) -> str:
    """Full path of a gcc runtime library, or "" where it is not installed."""
    gcc = shutil.which("gcc")
    if gcc is None:
        return ""
    done = subprocess.run([gcc, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = Path(done.stdout.strip())
    return str(path.resolve()) if path.is_absolute() else ""


def available() -> bool:
    return bool(runtime("libasan.so") and runtime("libubsan.so"))


def build(directory: Path = BUILD) -> None:
    """Copy package and tests, and compile the extension beside its Python files."""
    for part in ("ipc", "tests/ipc", "docs"):
        target = directory / part
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    helpers = (f"tests/{name}.py" for name in ("__init__", "conftest", "examples", "forked", "namespaces"))
    for name in ("pyproject.toml", *helpers):
        shutil.copy2(ROOT / name, directory / name)
    package = directory / "ipc"
    sources = sorted(package.glob("core/*.c"))
    flags = [*MODULE, *SANITIZERS, f"-I{sysconfig.get_path('include')}"]
    command = ["gcc", *flags, *map(str, sources), "-o", str(package / "_core.abi3.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the sanitized build failed:\n{done.stderr}")


def environment(directory: Path = BUILD) -> dict[str, str]:
    """Variables under which an unsanitized Python loads the sanitized extension."""
    return {
        **os.environ,
        "RINGSERVE_HOSTILE_VARIANTS": "6000",  # twenty times slower here
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # each object its own block: a use after free is seen
        "PYTHONPATH": str(directory),
    }


def run(arguments: list[str], directory: Path = BUILD) -> int:
    """pytest on the sanitized build; its exit code."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=directory, env=environment(directory), check=False).returncode


def main() -> int:
    if not available():
        print("not run: gcc's libasan and libubsan were not found", file=sys.stderr)
        return 2
    good = bool(sys.argv[1:]) or operators.run_all(operators.SANITIZED)
    build()
    ignored = [f"--ignore=tests/ipc/{name}" for name in NOT_HERE]
    return run(sys.argv[1:] or ["tests/ipc", *ignored]) or (0 if good else 1)


if __name__ == "__main__":
    sys.exit(main())
