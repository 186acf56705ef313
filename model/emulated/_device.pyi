from typing import Any

from numpy.typing import NDArray

Choice = tuple[int, int, int, int]

def advance(
    cache: NDArray[Any],
    input_ids: NDArray[Any],
    positions: NDArray[Any],
    slot_mapping: NDArray[Any],
    valid_length: NDArray[Any],
    q_seq_lens: NDArray[Any],
    gather_index: NDArray[Any],
    block_tables: NDArray[Any],
    token_hashes: NDArray[Any],
    row_hashes: NDArray[Any],
    block_size: int,
    seed: int,
    /,
) -> tuple[int, int, int]: ...
def write_logits(
    row_hashes: NDArray[Any],
    q_seq_lens: NDArray[Any],
    base: NDArray[Any],
    logits: NDArray[Any],
    choice: Choice,
    /,
) -> None: ...
def write_tokens(
    row_hashes: NDArray[Any],
    q_seq_lens: NDArray[Any],
    token_ids: NDArray[Any],
    logprobs: NDArray[Any] | None,
    choice: Choice,
    /,
) -> None: ...
def wait_until(deadline_ns: int, spin_ns: int, /) -> None: ...
