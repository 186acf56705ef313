from typing import final

from pipeline.wire.step import Int32, Int64

@final
class TokenRecord:
    """Columns of a slot of the tokens ring: ``rows``, ``lengths``, ``counts`` ``[B]``, ``ids`` ``[B, 1 + D]``."""

    def __init__(self, rows: Int32, lengths: Int32, counts: Int32, ids: Int32, /) -> None: ...

@final
class SampleColumns:
    """Columns of a slot of the logits ring, all ``[S]`` but ``ids`` ``[S * K]``."""

    def __init__(
        self, rows: Int32, epochs: Int32, lengths: Int32, targets: Int32, drafts: Int32, logit_rows: Int32,
        ids: Int32, /,
    ) -> None: ...  # fmt: skip

@final
class TokenBoard:
    """Of every row: its length with the newest token, and that token with the drafts behind it.

    ``lengths``, ``counts`` ``[rows]``, ``ids`` ``[rows, 1 + D]``. The methods raise ValueError for a row that is none
    of the board's, and for more entries than there are; then nothing has changed.
    """

    def __init__(self, lengths: Int32, counts: Int32, ids: Int32, /) -> None: ...
    def apply(self, record: TokenRecord, count: int, /) -> None: ...
    def foresee(self, samples: SampleColumns, count: int, stride: int, /) -> None: ...

@final
class StepArrays:
    """`fill` writes a step's inputs: decode rows from the board, the slot's chunks, and padding to the smallest of
    ``buckets`` (tokens, rows, samples) that holds them, or to the one that `Head.FIXED` wants. It returns that
    bucket's number. `tokens` and `samples` are how many there are, and the last `scored` of the samples are positions
    of prompts that are scored; `drafts` are those of decode rows. `describe` writes what sampling must know of the
    positions that are sampled, and into ``fetched`` the positions whose logits are wanted.

    Both raise ValueError for what does not fit; sizes in a slot are not trusted.
    """

    def __init__(
        self, board: TokenBoard, block_size: int, buckets: tuple[tuple[int, int, int], ...], head: Int64,
        rows: Int32, epochs: Int32, kinds: Int32, new_tokens: Int32, most_drafts: Int32, limits: Int32,
        wants_logits: Int32, chunk_ids: Int32, chunk_positions: Int32, chunk_slots: Int32, targets: Int32,
        block_tables: Int32, input_ids: Int32, positions: Int32, slot_mapping: Int32, valid_length: Int32,
        q_seq_lens: Int32, sample_index: Int32, fetched: Int32, /,
    ) -> None: ...  # fmt: skip
    @property
    def tokens(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def scored(self) -> int: ...
    @property
    def drafts(self) -> int: ...
    def fill(self) -> int: ...
    def describe(self, samples: SampleColumns, /) -> int: ...
