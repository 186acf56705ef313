"""sampling → front: what a step brought a request, packed: a fixed header, then text and arrays.

A record is a token of a request (`Delta`), or scores of a piece of its prompt (`PromptScores`), all of which come
before its first token.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any

import msgspec
import numpy as np

from pipeline.wire.step import Float32, Int32

_HEAD = struct.Struct("<QIIiB")  # request, attempt, index, token, reason
_NUMBER_BYTES = 8  # of the request, with which it begins
_DELTA = struct.Struct(_HEAD.format + "bBfI")  # and stop, number of best tokens, log-probability, bytes of text
_TOP = struct.Struct("<if")
_SCORES = struct.Struct(_HEAD.format + "IIB")  # and position, number of tokens, number of best tokens

SCORES = 255
"""In place of the reason: the record holds scores. Index and token are 0, which no delta of a token has."""


class FinishReason(IntEnum):
    """Why a request ended. `NONE`: it has not."""

    NONE = 0
    LENGTH = 1  # max_tokens, or the model's limit
    EOS = 2  # an end token of the model
    STOP = 3  # a stop string or stop token of the request
    FAILED = 4  # the model or the sampler gave nothing usable


class Delta(msgspec.Struct, gc=False):
    """One token of a request, the text that it completed, and the end if it was the last.

    The text may be empty: the token completes no character, or may begin a stop string. A request that fails ends
    with token -1 and the reason in `text`.
    """

    request: int
    attempt: int  # as in the `Submit` that asked for it
    index: int  # output tokens so far, this one included
    token_id: int
    logprob: float  # NaN where not asked for
    reason: FinishReason
    text: str
    top: tuple[tuple[int, float], ...] = ()  # best first
    stop: int = -1  # which of the request's stop strings ended the text, if one did

    def pack(self) -> bytes:
        text = self.text.encode()
        head = _DELTA.pack(
            self.request, self.attempt, self.index, self.token_id, self.reason, self.stop,
            len(self.top), self.logprob, len(text),
        )  # fmt: skip
        return b"".join((head, text, *(_TOP.pack(*pair) for pair in self.top))) if self.top else head + text


_REASONS = tuple(FinishReason)  # by value; calling the class costs more than the rest of a delta
_TEXT, _unpack = _DELTA.size, _DELTA.unpack_from


def unpack_delta(record: Any) -> Delta:
    """`record` is bytes or a memoryview."""
    request, attempt, index, token, reason, stop, tops, logprob, length = _unpack(record)
    end = _TEXT + length
    text = str(record[_TEXT:end], "utf-8")
    top = tuple(_TOP.unpack_from(record, end + i * _TOP.size) for i in range(tops)) if tops else ()
    return Delta(request, attempt, index, token, logprob, _REASONS[reason], text, top, stop)


delta_head = _HEAD.unpack_from
"""Request, attempt, index, token and reason of a packed delta: what there is to be looked at for each token."""


def renumbered(record: bytes, request: int) -> bytes:
    """A packed delta, of another request."""
    return request.to_bytes(_NUMBER_BYTES, "little") + record[_NUMBER_BYTES:]


class PromptScores(msgspec.Struct, gc=False):
    """Log-probabilities of `n` tokens of a request's prompt, which follow the one at `position`, and of the `k` most
    probable ones in the place of each, best first. All are NaN where the logits were not finite."""

    request: int
    attempt: int
    position: int
    ids: Int32  # [n]
    logprobs: Float32  # [n]
    top_ids: Int32  # [n, k]
    top_logprobs: Float32  # [n, k]

    def pack(self) -> bytes:
        n, k = self.top_ids.shape
        head = _SCORES.pack(self.request, self.attempt, 0, 0, SCORES, self.position, n, k)
        return b"".join((head, *(a.tobytes() for a in (self.ids, self.logprobs, self.top_ids, self.top_logprobs))))


def unpack_scores(record: bytes) -> PromptScores:
    """Views of the record."""
    request, attempt, _, _, _, position, n, k = _SCORES.unpack_from(record)
    words = np.frombuffer(record, np.int32, 2 * n * (1 + k), _SCORES.size)
    ids, logprobs, top_ids, top_logprobs = np.split(words, np.cumsum((n, n, n * k)))
    of_best = top_ids.reshape(n, k), top_logprobs.view(np.float32).reshape(n, k)
    return PromptScores(request, attempt, position, ids, logprobs.view(np.float32), *of_best)


def scored_span(record: bytes) -> tuple[int, int]:
    """Position and number of tokens of packed scores."""
    position, count = _SCORES.unpack_from(record)[-3:-1]
    return position, count
