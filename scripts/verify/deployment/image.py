"""Builds what the Dockerfile says, each step in a clean root, and starts what comes out."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from scripts.lab.arguments import say
from scripts.lab.errors import BenchError
from scripts.verify.deployment.dockerfile import Stage, Step, environment, ignored, parse
from scripts.verify.deployment.manifests import ROOT
from scripts.verify.deployment.roots import build_command, copied, python_root

DOCKERFILE: Final = ROOT / "configs/Dockerfile"
_COMPILERS: Final = ("gcc", "g++", "cc", "c++", "clang", "make")


@dataclass(frozen=True, slots=True)
class Image:
    root: Path
    stage: Stage
    folder: str  # WORKDIR
    user: str

    @property
    def environment(self) -> Mapping[str, str]:
        return environment(self.stage.steps)

    @property
    def command(self) -> list[str]:
        return [*self.stage.last("ENTRYPOINT"), *self.stage.last("CMD")]


def build(folder: Path) -> Image:
    """All stages, in `folder`. Raises BenchError."""
    patterns = [line for line in Path(f"{DOCKERFILE}.dockerignore").read_text().split() if line]
    made: dict[str, Path] = {}
    for number, stage in enumerate(parse(DOCKERFILE.read_text())):
        name = stage.name or str(number)
        base = made.get(stage.base) or python_root(stage.base, folder)
        made[name] = copied(base, folder / f"stage-{name}")
        image = _Builder(made[name], made, patterns).run(stage)
    return image


class _Builder:
    """Of one stage."""

    def __init__(self, root: Path, stages: Mapping[str, Path], patterns: Sequence[str]) -> None:
        self._root, self._stages, self._patterns = root, stages, patterns
        self._folder, self._as = "/", "0"
        self._environment: dict[str, str] = {}

    def run(self, stage: Stage) -> Image:
        """Raises BenchError."""
        for step in stage.steps:
            began = time.monotonic()
            getattr(self, f"_{step.kind.lower()}", self._nothing)(step)
            say(f"{step.kind} {step.text[:90]} ({time.monotonic() - began:.1f} s)")
        return Image(self._root, stage, self._folder, self._as)

    def _nothing(self, step: Step) -> None:
        """Of those that say something about the image, and change nothing in it."""

    def _env(self, step: Step) -> None:
        self._environment |= environment([step])

    def _user(self, step: Step) -> None:
        self._as = step.words[0]

    def _workdir(self, step: Step) -> None:
        self._folder = step.words[0]
        self._inside(self._folder).mkdir(parents=True, exist_ok=True)

    def _run(self, step: Step) -> None:
        done = subprocess.run(
            build_command(self._root, step.text, self._folder, self._environment, self._as),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"RUN {step.text} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")

    def _copy(self, step: Step) -> None:
        options = [word for word in step.words if word.startswith("--")]
        *sources, target = (word for word in step.words if not word.startswith("--"))
        stage = next((option.removeprefix("--from=") for option in options), None)
        context = ROOT if stage is None else self._stages[stage]
        place = self._inside(str(PurePosixPath(self._folder) / target))
        for name in sources:
            source = context / name.lstrip("/")
            if source.is_dir():
                leave = self._left_out if stage is None else None
                shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True, ignore=leave)
            elif source.is_file():
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, place / source.name)
            else:
                raise BenchError(f"COPY {name}: there is no such file")

    def _left_out(self, folder: str, names: list[str]) -> set[str]:
        within = PurePosixPath(folder).relative_to(ROOT)
        return {name for name in names if ignored(within / name, self._patterns)}

    def _inside(self, path: str) -> Path:
        return self._root / path.lstrip("/")


def faults_of(image: Image) -> list[str]:
    """What it should not be like."""
    found = [f"{name} is in the image" for name in _COMPILERS if any(image.root.glob(f"usr/**/bin/{name}"))]
    if image.user == "0":
        found.append("it runs as root")
    writable = [
        path for path in image.root.glob("opt/ringserve/*") if path.stat().st_uid or path.stat().st_mode & 0o002
    ]
    return found + [f"{path.name} can be changed by the server" for path in writable]
