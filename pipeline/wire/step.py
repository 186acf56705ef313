"""What the slots of the pipeline's rings hold. Everything about shared layouts is declared here, once.

``T`` new tokens at most per step (token budget), ``B`` rows, ``W`` blocks per block table, ``V`` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ipc import Field, Layout

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

HEADER_WORDS = 16
STAMP_WORDS = 8


class Head(IntEnum):
    """Words of the header of a step, and of everything that follows from it."""

    STEP = 0  # number of the step, from 1
    TOKENS = 1  # bucket: flattened tokens, padding included
    ROWS = 2  # bucket: rows, padding included
    LIVE_TOKENS = 3  # of which are real
    LIVE_ROWS = 4
    DECODE_ROWS = 5  # the first rows of the step bring one new token each, whose id comes from sampling
    DEPENDS_ON_STEP = 6  # sampling of this step must be known before ids can be filled in; 0: of none
    ARGMAX_ON_DEVICE = 7  # 1: token ids instead of logits are wanted
    ALL_ARGMAX = 8  # 1: every row's token is the argmax: inference knows it itself and does not wait for sampling
    LOGPROBS = 9  # 1: log-probabilities of those token ids, too


class Stamp(IntEnum):
    """Words of the time stamps: nanoseconds of the monotonic clock at each hand-over."""

    SCHEDULED = 0  # preprocess published the descriptor
    TAKEN = 1  # inference had finished the step before and took it up
    LAUNCHED = 2  # token ids were there, the device was started
    COMPUTED = 3  # the device was done
    RECEIVED = 4  # sampling has the logits
    SAMPLED = 5  # tokens were published to inference
    SENT = 6  # text was published to the front
    BEGUN = 7  # preprocess began to plan it; 0: unknown


@dataclass(frozen=True, slots=True)
class Shapes:
    """Capacities that all processes agree on; they are part of every layout's hash."""

    token_budget: int
    max_rows: int
    block_table_width: int
    vocab_size: int


class RowColumns(Protocol):
    """What all slots have in common that speak of rows."""

    head: Int64
    rows: Int32


class StepColumns(RowColumns, Protocol):
    """Views of a slot of the step ring; the layouts below say what each column holds."""

    stamps: Int64
    input_ids: Int32
    positions: Int32
    slot_mapping: Int32
    valid_length: Int32
    q_seq_lens: Int32
    gather_index: Int32
    epochs: Int32
    sampled: Int32
    block_tables: Int32


class LogitsColumns(RowColumns, Protocol):
    """Of the logits ring."""

    stamps: Int64
    epochs: Int32
    sampled: Int32
    lengths: Int32
    token_ids: Int32
    logprobs: Float32
    logits: Float32


class TokensColumns(RowColumns, Protocol):
    """Of the tokens ring."""

    token_ids: Int32


class ResultsColumns(RowColumns, Protocol):
    """Of the results ring."""

    epochs: Int32
    sampled: Int32
    token_ids: Int32
    finished: Int32


def step_layout(shapes: Shapes) -> Layout:
    """preprocess → inference: one step of the model."""
    t, b, w = shapes.token_budget, shapes.max_rows, shapes.block_table_width
    return Layout(
        "step",
        [
            Field("head", "int64", (HEADER_WORDS,), "see Head"),
            Field("stamps", "int64", (STAMP_WORDS,), "see Stamp"),
            Field("input_ids", "int32", (t,), "token ids; those of decode rows are filled in by inference"),
            Field("positions", "int32", (t,), "position of each token in its sequence"),
            Field("slot_mapping", "int32", (t,), "physical KV slot of each token; -1: skip"),
            Field("valid_length", "int32", (b,), "context length, new tokens included"),
            Field("q_seq_lens", "int32", (b,), "new tokens of the row; 0: padding"),
            Field("gather_index", "int32", (b,), "index in T of the row's last new token"),
            Field("rows", "int32", (b,), "the sequence's row, the same from step to step"),
            Field("epochs", "int32", (b,), "which use of that row: it rises with each sequence that gets it"),
            Field("sampled", "int32", (b,), "1: a token is to be sampled; 0: more of the prompt follows"),
            Field("block_tables", "int32", (b, w), "physical KV blocks of each row"),
        ],
    )


def logits_layout(shapes: Shapes) -> Layout:
    """inference → sampling: what a step yielded."""
    b = shapes.max_rows
    return Layout(
        "logits",
        [
            Field("head", "int64", (HEADER_WORDS,), "as in the step"),
            Field("stamps", "int64", (STAMP_WORDS,), "see Stamp"),
            Field("rows", "int32", (b,), "as in the step"),
            Field("epochs", "int32", (b,), "as in the step"),
            Field("sampled", "int32", (b,), "as in the step"),
            Field("lengths", "int32", (b,), "context length: the position of the token to be sampled"),
            Field("token_ids", "int32", (b,), "argmax per row, where the step was greedy; -1: no finite logits"),
            Field("logprobs", "float32", (b,), "of those tokens, where they are wanted"),
            Field("logits", "float32", (b, shapes.vocab_size), "one row per row of the step"),
        ],
    )


def tokens_layout(shapes: Shapes) -> Layout:
    """sampling → inference: the token board, one token per row of the step."""
    b = shapes.max_rows
    return Layout(
        "tokens",
        [
            Field("head", "int64", (HEADER_WORDS,), "as in the step"),
            Field("rows", "int32", (b,), "as in the step"),
            Field("token_ids", "int32", (b,), "the tokens that were chosen"),
        ],
    )


def results_layout(shapes: Shapes) -> Layout:
    """sampling → preprocess: tokens and finished rows of a step."""
    b = shapes.max_rows
    return Layout(
        "results",
        [
            Field("head", "int64", (HEADER_WORDS,), "as in the step"),
            Field("rows", "int32", (b,), "as in the step"),
            Field("epochs", "int32", (b,), "as in the step"),
            Field("sampled", "int32", (b,), "as in the step"),
            Field("token_ids", "int32", (b,), "the tokens that were chosen"),
            Field("finished", "int32", (b,), "1: the sequence is over"),
        ],
    )
