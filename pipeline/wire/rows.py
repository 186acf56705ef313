"""preprocess → sampling: which request has which row, packed: a fixed header, then arrays."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model.sampling import SamplingLimits, SamplingParams
from pipeline.wire.request import MAX_STOP_LENGTH, MAX_STOPS, GenerationParams
from pipeline.wire.step import Int32

_ADMIT = struct.Struct("<QqiIIIIIIIIIIddddddQq")


@dataclass(slots=True)
class Admit:
    """From step `from_step` on, row `row` belongs to this request. `epoch`: which use of that row it is.

    A request that was preempted is admitted again, with the tokens it has already got in `output_ids`.
    """

    request: int
    from_step: int
    row: int
    epoch: int
    limit: int  # prompt and output tokens at most
    cached_tokens: int
    params: GenerationParams
    prompt_ids: Int32
    output_ids: Int32
    arrival_ns: int = 0

    def pack(self) -> bytes:
        p, s = self.params, self.params.sampling
        stops = orjson.dumps(p.stop)
        flags = (
            p.include_stop | p.skip_special << 1 | p.ignore_eos << 2 | (s.seed is not None) << 3 | p.raw_logit << 4
        )
        bias_ids = np.fromiter(s.logit_bias, np.int32, len(s.logit_bias))
        bias_values = np.fromiter(s.logit_bias.values(), np.float32, len(s.logit_bias))
        banned, stopping = np.asarray(s.banned_token_ids, np.int32), np.asarray(s.stop_token_ids, np.int32)
        head = _ADMIT.pack(
            self.request, self.from_step, self.row, self.epoch, self.limit, self.cached_tokens, flags,
            self.prompt_ids.size, self.output_ids.size, bias_ids.size, banned.size, stopping.size, len(stops),
            s.temperature, s.top_p, s.min_p, s.repetition_penalty, s.presence_penalty, s.frequency_penalty,
            (s.seed or 0) % 2**64, self.arrival_ns,
        )  # fmt: skip
        tail = np.array([s.top_k, -1 if s.logprobs is None else s.logprobs, s.min_tokens, p.max_tokens], np.int32)
        arrays = (tail, self.prompt_ids, self.output_ids, bias_ids, bias_values, banned, stopping)
        return b"".join([head, *(np.ascontiguousarray(array).tobytes() for array in arrays), stops])


def longest_admit(max_length: int) -> int:
    """Bytes of the largest `Admit`, for sequences of `max_length` tokens; an escaped character of JSON takes six."""
    biased = SamplingLimits(0, max_length).max_biased_tokens
    stops = MAX_STOPS * (6 * MAX_STOP_LENGTH + 3) + 2
    ends = 4096  # of the model itself
    return _ADMIT.size + 16 + 4 * max_length + 8 * biased + stops + ends


@dataclass(frozen=True, slots=True)
class Drop:
    """This request is cancelled; nothing more is to be said about it."""

    request: int

    def pack(self) -> bytes:
        return self.request.to_bytes(8, "little")


def unpack_row(record: Any) -> Admit | Drop:
    if len(record) == 8:
        return Drop(int.from_bytes(record, "little"))
    return _unpack_admit(record)


def _unpack_admit(record: Any) -> Admit:
    (
        request, from_step, row, epoch, limit, cached, flags, prompts, outputs, biases, bans, stops, _,
        temperature, top_p, min_p, repetition, presence, frequency, seed, arrival_ns,
    ) = _ADMIT.unpack_from(record)  # fmt: skip
    cut = _Cutter(bytes(record), _ADMIT.size)
    top_k, logprobs, min_tokens, max_tokens = cut.take(4).tolist()
    prompt_ids, output_ids = cut.take(prompts), cut.take(outputs)
    bias_ids, bias_values = cut.take(biases), cut.take(biases, np.float32)
    banned, stopping = cut.take(bans), cut.take(stops)
    sampling = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
        seed=seed if flags & 8 else None,
        logprobs=None if logprobs < 0 else logprobs,
        logit_bias=dict(zip(bias_ids.tolist(), bias_values.tolist(), strict=True)),
        banned_token_ids=tuple(banned.tolist()),
        min_tokens=min_tokens,
        stop_token_ids=tuple(stopping.tolist()),
    )
    params = GenerationParams(
        sampling,
        max_tokens,
        stop=tuple(orjson.loads(cut.rest())),
        include_stop=bool(flags & 1),
        skip_special=bool(flags & 2),
        ignore_eos=bool(flags & 4),
        raw_logit=bool(flags & 16),
    )
    return Admit(request, from_step, row, epoch, limit, cached, params, prompt_ids, output_ids, arrival_ns)


class _Cutter:
    """Cuts arrays off a record, one behind the other."""

    def __init__(self, record: bytes, at: int) -> None:
        self._record, self._at = record, at

    def take(self, count: int, dtype: Any = np.int32) -> NDArray[Any]:
        array: NDArray[Any] = np.frombuffer(self._record, dtype, count, self._at)
        self._at += array.nbytes
        return array

    def rest(self) -> bytes:
        return self._record[self._at :]
