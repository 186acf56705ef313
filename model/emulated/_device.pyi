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
    adapter: NDArray[Any],
    block_tables: NDArray[Any],
    hashes: NDArray[Any],
    block_size: int,
    adapters: int,
    seed: int,
    /,
) -> tuple[int, int, int]: ...
def write_logits(
    hashes: NDArray[Any],
    sample_index: NDArray[Any],
    rows: NDArray[Any],
    base: NDArray[Any],
    logits: NDArray[Any],
    choice: Choice,
    /,
) -> None: ...
def write_tokens(hashes: NDArray[Any], sample_index: NDArray[Any], ids: NDArray[Any], choice: Choice, /) -> None: ...
def write_best(
    hashes: NDArray[Any],
    sample_index: NDArray[Any],
    base: NDArray[Any],
    sums: NDArray[Any],
    ids: NDArray[Any],
    logits: NDArray[Any] | None,
    log_sum_exp: NDArray[Any] | None,
    targets: NDArray[Any] | None,
    target_logit: NDArray[Any] | None,
    choice: Choice,
    /,
) -> None: ...
def fill_sums(base: NDArray[Any], sums: NDArray[Any], /) -> None: ...
def wait_until(deadline_ns: int, spin_ns: int, /) -> None: ...
