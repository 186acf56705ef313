"""What the slots of the pipeline's rings hold. Everything about shared layouts is declared here, once.

``T`` new tokens at most per step (token budget), ``B`` rows, ``S`` sampled positions, ``W`` blocks per block table,
``V`` vocabulary, ``K`` candidates per position, ``D`` drafts per row, ``L`` rows of logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ipc import Field, Layout
from model.sampling import DRAW

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt64 = NDArray[np.uint64]

HEADER_WORDS = 16
STAMP_WORDS = 8
MAX_CANDIDATES = 20  # OpenAI's limit of the most probable tokens that are reported
MOST_CANDIDATES = 64  # of a position: those that inference draws from
DRAW_NUMBERS = len(DRAW)


class Head(IntEnum):
    """Words of the header of a step, and of everything that follows from it."""

    # preprocess plans them
    STEP = 0  # number of the step, from 1
    ROWS = 1
    DECODE_ROWS = 2  # the first rows of the step: their ids come from the token board; chunks of prompts follow them
    CHUNK_TOKENS = 3  # tokens of those chunks
    DEPENDS_ON_STEP = 4  # sampling of this step must be known before ids can be filled in; 0: of none
    CHOSEN_BY_SAMPLING = 5  # see Choice; NONE: inference knows every token itself, and does not wait
    CANDIDATES = (
        6  # wanted from the device per position; 1: the argmax; 0: the host has the logits, or nothing is sampled
    )
    SCORES = 7  # see Scores
    # inference adds them
    TOKENS = 8  # new tokens, drafts included
    SAMPLES = 9  # sampled positions
    LOGIT_ROWS = 10  # of which so many have their logits in the slot
    SCORED = 11  # of which so many, the last ones, are scored: nothing is sampled there
    # preprocess, again
    DRAFTS = 12  # that the rows may carry in all; not 0: sampling's record of the step before must be there first
    DRAWS = 13  # not 0: rows have `draws`; what inference chose at each position is in `tokens`
    FIXED = 14  # not 0: a row is deterministic, and the step is padded to the bucket with all rows and so many tokens


class Choice(IntFlag):
    """Why sampling must choose a token: inference waits for it before it starts the next step."""

    NONE = 0  # it is the argmax
    DRAWN = 1  # at a temperature, and not from the candidates
    EDITED = 2  # after a penalty, a bias or a ban


class Scores(IntEnum):
    """What the device reports of each sampled position beside the candidates."""

    NONE = 0
    LOGITS = 1  # theirs
    CANDIDATES = 2  # and the log-sum-exp
    TARGETS = 3  # and the logits of `targets`


class LogitsWanted(IntEnum):
    """Whether the host needs the logits of a row's sampled positions."""

    NO = 0
    YES = 1
    TO_DRAW = 2  # only where its token can't be drawn from the candidates


class RowKind(IntEnum):
    """What a row's new tokens are, and which of their positions are sampled."""

    DECODE = 0  # the newest token, and drafts behind it: all are sampled
    CHUNK = 1  # a piece of its prompt: none is
    PROMPT_END = 2  # the last piece: its last position is
    SCORE = 3  # a piece whose every position is scored: see `targets`


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
    samples: int = 0  # sampled positions of a step; 0: as many as rows
    logit_rows: int = 0  # of which so many may need their logits on the host; 0: as many as rows
    candidates: int = 1  # the device's best per position
    drafts: int = 0  # of a row

    def __post_init__(self) -> None:
        for name in ("samples", "logit_rows"):
            object.__setattr__(self, name, getattr(self, name) or self.max_rows)


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
    targets: Int32
    epochs: Int32
    kinds: Int32
    new_tokens: Int32
    most_drafts: Int32
    limits: Int32
    wants_logits: Int32
    adapter: Int32
    sampled: Int32
    seeds: UInt64
    draws: Float64
    block_tables: Int32


class LogitsColumns(RowColumns, Protocol):
    """Of the logits ring."""

    stamps: Int64
    epochs: Int32
    lengths: Int32
    targets: Int32
    drafts: Int32
    logit_rows: Int32
    ids: Int32
    tokens: Int32
    best_logits: Float32
    log_sum_exp: Float64
    target_logits: Float32
    logits: Float32


class TokensColumns(RowColumns, Protocol):
    """Of the tokens ring."""

    lengths: Int32
    counts: Int32
    ids: Int32


class ResultsColumns(RowColumns, Protocol):
    """Of the results ring."""

    epochs: Int32
    counts: Int32
    ids: Int32
    finished: Int32
    wishes: Int32


def step_layout(shapes: Shapes) -> Layout:
    """preprocess → inference: one step of the model. Decode rows come first."""
    t, b, w = shapes.token_budget, shapes.max_rows, shapes.block_table_width
    return Layout(
        "step",
        [
            Field("head", "int64", (HEADER_WORDS,), "see Head"),
            Field("stamps", "int64", (STAMP_WORDS,), "see Stamp"),
            Field("input_ids", "int32", (t,), "token ids of the chunks"),
            Field("positions", "int32", (t,), "position of each of them in its sequence"),
            Field("slot_mapping", "int32", (t,), "its physical KV slot"),
            Field("targets", "int32", (t,), "of rows that are scored: the token that follows; -1: to be sampled"),
            Field("rows", "int32", (b,), "the sequence's row, the same from step to step"),
            Field("epochs", "int32", (b,), "which use of that row: it rises with each sequence that gets it"),
            Field("kinds", "int32", (b,), "see RowKind"),
            Field("new_tokens", "int32", (b,), "tokens of the row's chunk; inference counts those of decode rows"),
            Field("most_drafts", "int32", (b,), "drafts that a decode row may carry at most"),
            Field("limits", "int32", (b,), "tokens of the sequence at most"),
            Field("wants_logits", "int32", (b,), "see LogitsWanted"),
            Field("adapter", "int32", (b,), "which adapter its weights get, from 1; 0: none"),
            Field("sampled", "int32", (b,), "1: its new tokens were sampled; 0: they are of its prompt"),
            Field("seeds", "uint64", (b,), "of its draws, where head's DRAWS says so"),
            Field("draws", "float64", (b, DRAW_NUMBERS), "what its draws obey, likewise: see model.sampling.DRAW"),
            Field("block_tables", "int32", (b, w), "physical KV blocks of each row"),
        ],
    )


def logits_layout(shapes: Shapes) -> Layout:
    """inference → sampling: what a step yielded, by sampled position; those of a row follow each other, and those
    that are scored stand behind all others."""
    s, k = shapes.samples, shapes.candidates
    return Layout(
        "logits",
        [
            Field("head", "int64", (HEADER_WORDS,), "see Head"),
            Field("stamps", "int64", (STAMP_WORDS,), "see Stamp"),
            Field("rows", "int32", (s,), "as in the step"),
            Field("epochs", "int32", (s,), "as in the step"),
            Field("lengths", "int32", (s,), "context length: the position of the token to be sampled"),
            Field("targets", "int32", (s,), "the token to be scored; -1: one is to be sampled"),
            Field(
                "drafts", "int32", (s,), "the token that stands at the row's next position, a draft; -1: none does"
            ),
            Field("logit_rows", "int32", (s,), "where in `logits` its logits are; -1: nowhere"),
            Field("ids", "int32", (s * k,), "the best tokens, head's CANDIDATES per position; -1: no finite logits"),
            Field("tokens", "int32", (s,), "those that inference chose, where head's DRAWS says so; -1: none"),
            Field("best_logits", "float32", (s * k,), "the candidates' logits, where head's SCORES says so"),
            Field("log_sum_exp", "float64", (s,), "of all logits, likewise"),
            Field("target_logits", "float32", (s,), "of `targets`, likewise"),
            Field("logits", "float32", (shapes.logit_rows, shapes.vocab_size), "of positions that need them"),
        ],
    )


def tokens_layout(shapes: Shapes) -> Layout:
    """sampling → inference: what is new in the rows of a step."""
    b = shapes.max_rows
    return Layout(
        "tokens",
        [
            Field("head", "int64", (HEADER_WORDS,), "as in the step; ROWS: how many follow"),
            Field("rows", "int32", (b,), "as in the step"),
            Field("lengths", "int32", (b,), "tokens of the sequence, the newest included"),
            Field("counts", "int32", (b,), "ids: the newest token, and drafts behind it"),
            Field("ids", "int32", (b, 1 + shapes.drafts), "those tokens"),
        ],
    )


def results_layout(shapes: Shapes) -> Layout:
    """sampling → preprocess: tokens and finished rows of a step."""
    b = shapes.max_rows
    return Layout(
        "results",
        [
            Field("head", "int64", (HEADER_WORDS,), "as in the step; ROWS: how many follow"),
            Field("rows", "int32", (b,), "as in the step"),
            Field("epochs", "int32", (b,), "as in the step"),
            Field("counts", "int32", (b,), "tokens that were chosen"),
            Field("ids", "int32", (b, 1 + shapes.drafts), "those tokens"),
            Field("finished", "int32", (b,), "1: the sequence is over"),
            Field("wishes", "int32", (b,), "drafts that the row is likely to have for the step after the next"),
        ],
    )
