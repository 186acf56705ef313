from typing import Any

from numpy.typing import NDArray

COLUMNS: tuple[tuple[str, str, str], ...]
"""Name, numpy type, and what follows the row axis."""

PARAMETERS: tuple[str, ...]
"""Columns of float64, one number a row: the scalar parameters that the kernels act on."""

class Kernel:
    def __new__(cls, vocab_size: int, columns: dict[str, NDArray[Any]], width: int = 0) -> Kernel: ...
    def sample(
        self,
        logits: NDArray[Any],
        rows: NDArray[Any],
        positions: NDArray[Any],
        token_ids: NDArray[Any],
        status: NDArray[Any],
        logprobs: NDArray[Any],
        top_ids: NDArray[Any],
        top_logprobs: NDArray[Any],
        /,
    ) -> None: ...
    def choose(
        self,
        logits: NDArray[Any],
        rows: NDArray[Any],
        positions: NDArray[Any],
        token_ids: NDArray[Any],
        status: NDArray[Any],
        logprobs: NDArray[Any],
        top_ids: NDArray[Any],
        top_logprobs: NDArray[Any],
        /,
    ) -> None: ...
    def compute_logprobs(
        self,
        logits: NDArray[Any],
        rows: NDArray[Any],
        positions: NDArray[Any],
        token_ids: NDArray[Any],
        status: NDArray[Any],
        logprobs: NDArray[Any],
        top_ids: NDArray[Any],
        top_logprobs: NDArray[Any],
        /,
    ) -> None: ...
    def observe(self, row: int, ids: NDArray[Any], is_output: bool, /) -> None: ...
