"""The C++ operator's library: where it is, its settings, and the range check of a step."""

from __future__ import annotations

import ctypes
from pathlib import Path

from model.errors import ConfigurationError, StepError
from model.runner import RunnerFacts, StepInputs

LIBRARY = Path(__file__).parent.parent / "libringserve_attention.so"
OPERATOR = "ringserve_paged_attention"
LINEAR, EMBEDDING, EXPERTS = "ringserve_linear", "ringserve_embedding", "ringserve_experts"
ADAPTERS, ADAPTED_LINEAR = "ringserve_adapters", "ringserve_adapted_linear"

_MESSAGE_BYTES = 256


_ARRAYS = (
    "input_ids",
    "positions",
    "slot_mapping",
    "valid_length",
    "q_seq_lens",
    "sample_index",
    "adapter",
    "block_tables",
)
_SIZES = (
    *("tokens", "rows", "samples", "table_width"),
    *("num_blocks", "block_size", "vocab_size", "max_length", "adapters"),
)


class _StepIndices(ctypes.Structure):
    """`ringserve::StepIndices` in csrc/step_check.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in _ARRAYS] + [(name, ctypes.c_int64) for name in _SIZES]


def load_library() -> ctypes.CDLL:
    """The operator's library. Raises ConfigurationError when it has not been built."""
    if not LIBRARY.exists():
        raise ConfigurationError(f"{LIBRARY.name} is missing beside {LIBRARY.parent}; build it: pip install -e .")
    library = ctypes.CDLL(str(LIBRARY))
    library.ringserve_attention_kernel.restype = ctypes.c_char_p
    library.ringserve_attention_kernel_name.restype = ctypes.c_char_p
    library.ringserve_attention_use_kernel.argtypes = [ctypes.c_char_p]
    library.ringserve_attention_error.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    library.ringserve_check_step.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    return library


def set_threads(threads: int) -> None:
    """How many threads may work on one call of the operator, the caller's among them."""
    load_library().ringserve_attention_threads(threads)


def kernel_name() -> str:
    """Instruction set in use: "avx512", "avx2", "sse2", "neon" or "portable"."""
    name: bytes = load_library().ringserve_attention_kernel()
    return name.decode()


def supported_kernels() -> tuple[str, ...]:
    """Instruction sets that this processor can run, the fastest first."""
    library = load_library()
    names: list[str] = []
    while (name := library.ringserve_attention_kernel_name(len(names))) is not None:
        names.append(name.decode())
    return tuple(names)


def use_kernel(name: str) -> None:
    """Choose an instruction set. Raises ConfigurationError when this processor cannot run it."""
    if load_library().ringserve_attention_use_kernel(name.encode()):
        raise ConfigurationError(f"kernel {name!r} cannot run here; there are {', '.join(supported_kernels())}")


def last_error() -> str:
    """Why the operator last failed, or an empty string."""
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    load_library().ringserve_attention_error(message, _MESSAGE_BYTES)
    return message.value.decode()


class StepCheck:
    """Range check of the arrays of one binding; about a microsecond per call.

    It runs before each step because MindSpore cannot run a graph again after an operator in it has failed.
    """

    def __init__(self, inputs: StepInputs, facts: RunnerFacts) -> None:
        library = load_library()
        self._check = library.ringserve_check_step
        self._inputs = inputs  # keeps the memory mapped
        self._message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        self._indices = _StepIndices(
            *(getattr(inputs, name).ctypes.data for name in _ARRAYS),
            inputs.bucket.tokens,
            inputs.bucket.rows,
            inputs.bucket.samples,
            inputs.block_tables.shape[1],
            facts.num_blocks,
            facts.block_size,
            facts.vocab_size,
            facts.max_length,
            facts.adapters,
        )
        self._reference = ctypes.byref(self._indices)

    def __call__(self) -> None:
        """Raises StepError that names the first array, index and value out of range."""
        if self._check(self._reference, self._message, _MESSAGE_BYTES):
            raise StepError(f"corrupt step: {self._message.value.decode()}")
