"""preprocess → sampling: which request has which row."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from model.sampling import SamplingLimits
from pipeline.wire.record import Record, ids_of
from pipeline.wire.request import MAX_STOP_LENGTH, MAX_STOPS
from pipeline.wire.step import Int32


class Assign(Record, frozen=True, tag=0):
    """From step `from_step` on, row `row` belongs to this request. `epoch`: which use of that row it is.

    What the client wants is in `params`, as the front has encoded it; the rest was decided in preprocess. A request
    that was preempted is assigned a row again, with the tokens it has already got in its output.
    """

    request: int
    attempt: int
    from_step: int
    row: int
    epoch: int
    limit: int  # prompt and output tokens at most
    seed: int | None  # None: nothing is drawn
    end_ids: tuple[int, ...]  # tokens of the model that end it
    params: bytes  # a `Request`
    prompt: bytes  # token ids
    output: bytes = b""  # token ids
    adapter: int = 0  # its slot; 0: none

    @property
    def prompt_ids(self) -> Int32:
        return ids_of(self.prompt)

    @property
    def output_ids(self) -> Int32:
        return ids_of(self.output)


class Drop(Record, frozen=True, tag=1):
    """This request is cancelled; nothing more is to be said about it."""

    request: int


RowChange: TypeAlias = Assign | Drop


def unpack_row(record: bytes) -> RowChange:
    return _CHANGES.decode(record)


_NUMBER = 9  # bytes that a number takes at most
_NUMBERS = 32  # that a record holds beside those below
_BIAS = 5 + _NUMBER  # a token id and what is added to its logit
_ENDS = 4096  # of the model itself


def longest_admit(max_length: int) -> int:
    """Bytes of the largest `Assign`, for sequences of `max_length` tokens; a character takes at most four."""
    biased = SamplingLimits(0, max_length).max_biased_tokens
    stops = MAX_STOPS * (4 * MAX_STOP_LENGTH + 5)
    return _NUMBER * _NUMBERS + 4 * max_length + _BIAS * biased + stops + _ENDS


_CHANGES: msgspec.msgpack.Decoder[RowChange] = msgspec.msgpack.Decoder(RowChange)
