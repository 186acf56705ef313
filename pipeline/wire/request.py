"""What the pipeline's byte rings carry: requests in, answers out, and who sits in which row.

What is rare is JSON, with prompts and tokens beside it as they are. What sampling reads or writes for every row or
token is packed: a fixed header, then arrays. All of it is bounded: sizes were checked where they came from outside,
and a record that does not parse is a bug, not an input.
"""

from __future__ import annotations

import dataclasses
import secrets
import struct
from array import array
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from model.sampling import SamplingLimits, SamplingParams

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

MAX_STOPS = 64
MAX_STOP_LENGTH = 1024
"""Stop strings of a request, and characters of each."""

TOO_LONG = "context_length_exceeded"
"""OpenAI's code of an error, by which clients know that they may shorten the prompt."""


class FinishReason(IntEnum):
    """Why a request ended. `NONE`: it has not."""

    NONE = 0
    LENGTH = 1  # max_tokens, or the model's limit
    EOS = 2  # an end token of the model
    STOP = 3  # a stop string or stop token of the request
    FAILED = 4  # the model or the sampler gave nothing usable


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """What a request asks for; validated by the front, in the terms of its API."""

    sampling: SamplingParams
    max_tokens: int
    stop: tuple[str, ...] = ()
    include_stop: bool = False  # keep the stop string in the text
    skip_special: bool = True
    ignore_eos: bool = False
    open_ended: bool = False  # the client named no limit: max_tokens may be cut to what fits
    raw_logit: bool = False  # `logprob` is the token's logit, as in llm-serving


# ---- front → preprocess ------------------------------------------------------------------------------------------

Prompt: TypeAlias = "str | array[int]"
"""Text to be tokenized, or token ids as array("i")."""

_REQUEST = struct.Struct("<QIIII")  # first request, bytes of outputs, of the prompt, of the rest; whether it is text


@dataclass(frozen=True, slots=True)
class Choice:
    """One text that is wanted of a prompt. It goes on behind `output`, the tokens that its client has got already."""

    request: int
    seed: int | None = None
    output: array[int] = field(default_factory=lambda: array("i"))
    cached_tokens: int = 0  # of the prompt, as was told with the first token of `output`


@dataclass(frozen=True, slots=True)
class Submit:
    """Texts that are wanted of one prompt, which is tokenized once for all of them.

    Those that are `resumed` were let in before, and are not turned away because the queue is full. `params.sampling`
    has no seed of its own: that is the choice's.
    """

    choices: tuple[Choice, ...]
    prompt: Prompt
    params: GenerationParams
    add_special: bool = True  # let the tokenizer add BOS
    arrival_ns: int = 0
    resumed: bool = False

    def pack(self) -> bytes:
        """Raises UnicodeEncodeError for a text that has no UTF-8 form."""
        text = isinstance(self.prompt, str)
        prompt = self.prompt.encode() if isinstance(self.prompt, str) else self.prompt.tobytes()
        outputs = b"".join([choice.output.tobytes() for choice in self.choices])
        choices = [(one.request, one.seed, len(one.output), one.cached_tokens) for one in self.choices]
        rest = orjson.dumps(
            [choices, self.params, self.add_special, self.arrival_ns, self.resumed],
            default=dict,
            option=orjson.OPT_NON_STR_KEYS,
        )
        head = _REQUEST.pack(self.choices[0].request, len(outputs), len(prompt), len(rest), text)
        return b"".join((head, outputs, prompt, rest))

    def resume(self, choices: tuple[Choice, ...]) -> Submit:
        """The same prompt once more, for these choices to go on."""
        return dataclasses.replace(self, choices=choices, resumed=True)


def choose_seeds(params: GenerationParams, count: int) -> list[int | None]:
    """Of so many choices: as in vLLM, each has the next one; drawn if the client named none, so that whoever computes
    a choice again draws the same tokens. None where nothing is drawn."""
    seed = params.sampling.seed
    if params.sampling.greedy:
        return [None] * count
    if seed in (None, -1):
        return [secrets.randbits(63) for _ in range(count)]
    return [seed, *((seed + index) % 2**64 for index in range(1, count))]  # 64 bits, wherever it comes from


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client is gone."""

    request: int

    def pack(self) -> bytes:
        return self.request.to_bytes(8, "little")


def first_request(record: Any) -> int:
    """Which request a record of the front is about, before the rest of it is looked at."""
    return int.from_bytes(record[:8], "little")


def unpack_request(record: bytes) -> Submit | Cancel:
    if len(record) == 8:
        return Cancel(first_request(record))
    _, outputs, prompt, _rest, text = _REQUEST.unpack_from(record)
    start = _REQUEST.size + outputs
    content = record[start : start + prompt]
    choices, params, add_special, arrival_ns, resumed = orjson.loads(record[start + prompt :])
    return Submit(
        _unpack_choices(choices, record[_REQUEST.size : start]),
        content.decode() if text else array("i", content),
        _generation_params(params),
        add_special,
        arrival_ns,
        resumed,
    )


def _unpack_choices(choices: list[Any], outputs: bytes) -> tuple[Choice, ...]:
    every, at = [], 0
    for request, seed, count, cached in choices:
        every.append(Choice(request, seed, array("i", outputs[at : at + 4 * count]), cached))
        at += 4 * count
    return tuple(every)


def _generation_params(params: dict[str, Any]) -> GenerationParams:
    sampling = params.pop("sampling")
    sampling["logit_bias"] = {int(token): bias for token, bias in sampling["logit_bias"].items()}
    for name in ("banned_token_ids", "stop_token_ids"):
        sampling[name] = tuple(sampling[name])
    params["stop"] = tuple(params["stop"])
    return GenerationParams(SamplingParams(**sampling), **params)


# ---- preprocess → front ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is queued; what its prompt came to."""

    request: int
    prompt_tokens: int

    def pack(self) -> bytes:
        return orjson.dumps(["accepted", self])


@dataclass(frozen=True, slots=True)
class Refused:
    """The request will not be served. `status` is the HTTP status, `parameter` what was wrong, `code` its name."""

    request: int
    status: int
    message: str
    parameter: str | None = None
    code: str | None = None

    def pack(self) -> bytes:
        return orjson.dumps(["refused", self])


@dataclass(frozen=True, slots=True)
class Started:
    """The request has got its first row, `waited_ns` after it arrived, and some of its prompt in the cache."""

    request: int
    waited_ns: int
    cached_tokens: int = 0

    def pack(self) -> bytes:
        return orjson.dumps(["started", self])


def unpack_reply(record: Any) -> Accepted | Refused | Started:
    kind, body = orjson.loads(record)
    if kind == "started":
        return Started(**body)
    return Accepted(**body) if kind == "accepted" else Refused(**body)


# ---- preprocess → sampling ---------------------------------------------------------------------------------------

_ADMIT = struct.Struct("<QqiIIIIIIIIIIddddddQq")


@dataclass(slots=True)
class Admit:
    """From step `from_step` on, row `row` in its tenancy `epoch` belongs to this request.

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


# ---- sampling → front --------------------------------------------------------------------------------------------

_DELTA = struct.Struct("<QIIIifBB2xI")


@dataclass(slots=True)
class Delta:
    """One token of a request, the text that it completed, and the end if it was the last.

    The text may be empty: the token completes no character, or may begin a stop string. A request that fails ends
    with token -1 and the reason in `text`.
    """

    request: int
    index: int  # output tokens so far, this one included
    prompt_tokens: int
    cached_tokens: int
    token_id: int
    logprob: float  # NaN where not asked for
    reason: FinishReason
    text: str
    top: tuple[tuple[int, float], ...] = ()  # best first

    def pack(self) -> bytes:
        text = self.text.encode()
        head = _DELTA.pack(
            self.request, self.index, self.prompt_tokens, self.cached_tokens, self.token_id, self.logprob,
            self.reason, len(self.top), len(text),
        )  # fmt: skip
        return b"".join((head, text, *(_TOP.pack(*pair) for pair in self.top))) if self.top else head + text


_TOP = struct.Struct("<if")
_REASON_AT = struct.calcsize("<QIIIif")
_REASONS = tuple(FinishReason)  # by value; calling the class costs more than the rest of a delta


def unpack_delta(record: Any) -> Delta:
    """`record` is bytes or a memoryview."""
    request, index, prompt, cached, token, logprob, reason, tops, length = _DELTA.unpack_from(record)
    end = _DELTA.size + length
    text = str(record[_DELTA.size : end], "utf-8")
    top = tuple(_TOP.unpack_from(record, end + i * _TOP.size) for i in range(tops)) if tops else ()
    return Delta(request, index, prompt, cached, token, logprob, _REASONS[reason], text, top)


def is_last(record: bytes) -> bool:
    """Whether a packed delta ends its request."""
    return record[_REASON_AT] != FinishReason.NONE


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
