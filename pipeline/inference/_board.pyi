from typing import Any, final

from numpy.typing import NDArray

@final
class Lane:
    """`token_ids[i]` belongs to row `rows[i]`, whose last token is `board[rows[i]]`. All int32 with one axis.

    `post` and `fill` raise ValueError for a count that is not there and a row that is none of the board's.
    """

    def __init__(self, board: NDArray[Any], rows: NDArray[Any], token_ids: NDArray[Any], /) -> None: ...
    def post(self, count: int, /) -> None: ...
    def fill(self, count: int, /) -> None: ...
