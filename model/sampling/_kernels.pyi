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

class BestOfRows:
    """The largest logits of rows, equal ones by id, and what log-probabilities need. Not for two threads at once."""

    def __new__(cls, vocab_size: int, width: int = 0) -> BestOfRows: ...
    def find(
        self,
        logits: NDArray[Any],
        ids: NDArray[Any],
        best_logits: NDArray[Any] | None,
        log_sum_exp: NDArray[Any] | None,
        targets: NDArray[Any] | None,
        target_logit: NDArray[Any] | None,
        /,
    ) -> None:
        """Of the first ``n`` rows of ``logits`` ``[any, vocab]``: ``ids`` and ``best_logits`` ``[n, k]``,
        ``log_sum_exp`` ``[n]`` float64, ``target_logit`` ``[n]`` of ``targets`` ``[n]``. A row that is not finite has
        ids -1, and NaN for the rest. Raises ValueError for arrays that do not fit."""
