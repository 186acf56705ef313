from typing import Any

from numpy.typing import NDArray

COLUMNS: tuple[tuple[str, str, str], ...]
"""Name, numpy type, and what follows the row axis."""

PARAMETERS: tuple[str, ...]
"""Columns of float64, one number a row: the scalar parameters that the kernels act on."""

DRAW: tuple[str, ...]
"""Those of them that a draw obeys."""

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
        drafts: NDArray[Any] = ...,
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

class Drafter:
    """Guesses what follows in a sequence from what followed earlier in it: see history.c. Takes up to 16 bytes per
    row and token of ``max_length``, of rows with drafts. Not for two threads at once."""

    def __new__(cls, rows: int, max_length: int, most: int) -> Drafter: ...
    def begin(self, row: int, most: int, /) -> None:
        """A new sequence, which may have so many drafts; 0: none. Raises ValueError for a row out of range."""

    def read(self, row: int, limit: int, prompt: bytes, output: bytes, /) -> None:
        """The sequence's tokens, int32, as they were at `begin`; it will have ``limit`` at most. The row has no
        drafts before that; a token that came since `begin` is remembered."""

    def follow(
        self,
        rows: NDArray[Any],
        token_ids: NDArray[Any],
        drafts: NDArray[Any],
        starts: NDArray[Any],
        taken: NDArray[Any],
        counts: NDArray[Any],
        ids: NDArray[Any],
        wishes: NDArray[Any],
        /,
    ) -> tuple[int, bool]:
        """A step's tokens, and drafts for the next one. ``rows`` ``[S]``: of each position, -1: skip; ``token_ids``:
        the one that was chosen there, -1: none; ``drafts``: the one that stands at the row's next position, -1: none.

        Written for each row that has positions: in ``starts`` its first one, in ``taken`` how many tokens hold, in
        ``ids`` ``[S, 1 + most]`` the newest and drafts behind it, in ``counts`` how many these are, in ``wishes`` the
        drafts that it is likely to have in steps to come. Returns the number of rows, and whether one wishes. Raises
        ValueError for arrays that do not fit, or a row out of range."""

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

class Drawer:
    """Draws tokens from candidates, the largest logits of each position. Not for two threads at once."""

    def __new__(cls, vocab_size: int, width: int = 0) -> Drawer: ...
    def prepare(
        self,
        ids: NDArray[Any],
        logits: NDArray[Any],
        log_sum_exp: NDArray[Any],
        positions: NDArray[Any],
        seeds: NDArray[Any],
        parameters: NDArray[Any],
        tokens: NDArray[Any],
        /,
    ) -> None:
        """The arrays of the draws to come, whose buffers are held until the next call: looking them up takes longer
        than a draw. What they hold is read by `draw`. Raises ValueError for arrays that do not fit.

        ``ids`` and ``logits`` ``[n, k]`` are the candidates, largest first, equal ones by id (first id -1: not
        finite), ``log_sum_exp`` ``[n]`` float64 (NaN: unknown); of ``positions`` ``[n]``. ``seeds`` ``[n]`` uint64;
        ``parameters`` ``[n, 4]`` float64, in the order of `DRAW`."""

    def draw(self) -> int:
        """Fill ``tokens`` ``[n]`` with what `Sampler` would draw from all logits, edited by nothing; at temperature 0
        with the first candidate.

        -1 where the candidates do not tell, and where logits are not finite; returns how many those of the first kind
        are. Raises ValueError if nothing is prepared."""
