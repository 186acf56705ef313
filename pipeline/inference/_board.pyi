from typing import Any, final

from numpy.typing import NDArray

@final
class TokenBoard:
    """`token_ids[i]` belongs to row `rows[i]`, whose last token is `board[rows[i]]`. All int32 with one axis.

    `scatter` and `gather` raise ValueError for a count that is not there and a row that is none of the board's.
    """

    def __init__(self, board: NDArray[Any], rows: NDArray[Any], token_ids: NDArray[Any], /) -> None: ...
    def scatter(self, count: int, /) -> None: ...
    def gather(self, count: int, /) -> None: ...
