"""front ↔ preprocess: requests, and what becomes of them.

What is rare is JSON, with prompts and tokens beside it as they are. What sampling reads or writes for every row or
token is packed (`rows`, `delta`). All of it is bounded: sizes were checked where they came from outside, and a record
that does not parse is a bug, not an input.
"""

from __future__ import annotations

import dataclasses
import secrets
import struct
from array import array
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from model.sampling import SamplingParams

MAX_STOPS = 64
MAX_STOP_LENGTH = 1024
"""Stop strings of a request, and characters of each."""

TOO_LONG = "context_length_exceeded"
"""OpenAI's code of an error, by which clients know that they may shorten the prompt."""


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
