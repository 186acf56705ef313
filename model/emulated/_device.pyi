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
    sample_index: NDArray[Any],
    block_tables: NDArray[Any],
    token_hashes: NDArray[Any],
    sample_hashes: NDArray[Any],
    block_size: int,
    seed: int,
    /,
) -> tuple[int, int, int]: ...
def look(
    count: int,
    cache: NDArray[Any],
    input_ids: NDArray[Any],
    positions: NDArray[Any],
    slot_mapping: NDArray[Any],
    valid_length: NDArray[Any],
    q_seq_lens: NDArray[Any],
    sample_index: NDArray[Any],
    block_tables: NDArray[Any],
    token_hashes: NDArray[Any],
    sample_hashes: NDArray[Any],
    block_size: int,
    seed: int,
    /,
) -> int: ...
def write_logits(
    sample_hashes: NDArray[Any],
    rows: NDArray[Any],
    base: NDArray[Any],
    logits: NDArray[Any],
    choice: Choice,
    /,
) -> None: ...
def write_tokens(sample_hashes: NDArray[Any], ids: NDArray[Any], choice: Choice, /) -> None: ...
def wait_until(deadline_ns: int, spin_ns: int, /) -> None: ...
