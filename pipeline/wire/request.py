"""Requests on their way: front ↔ preprocess → sampling.

A request travels as it is: `Request`, its parameters, is encoded once, in the front, and the same bytes go on to
sampling (`Assign`). The prompt is a part of its own, which ends in preprocess. Nothing in a request names who
computes it, so it can be sent again, to anybody, with its output so far and its seed. Each time it is sent has a
number, the attempt, which all that is said of it brings back: what is said of another attempt is not for its stream.

Records are frozen types, each its own form in msgpack. They are written and read by this program only, and are
bounded, since sizes were checked where they came from outside: one that does not parse is a bug, not an input.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np

from model.sampling import MAX_GRAMMAR_BYTES, SamplingLimits, SamplingParams
from pipeline.wire.step import Int32

_ID_BYTES = 4
_ENCODER = msgspec.msgpack.Encoder()

MAX_STOPS = 64
MAX_STOP_LENGTH = 1024
"""Stop strings of a request, and characters of each."""

MANY_DRAFTS = 15
"""No server has more drafts at a time."""

TOO_LONG = "context_length_exceeded"
"""OpenAI's code of an error, by which clients know that they may shorten the prompt."""


UNREACHABLE = "deadline_unreachable"
"""Code of an error: the queue is too long for the request's deadline."""


FAILS_TWICE = "the request made a process of the server fail twice"
"""Why one is refused that was found to be poison."""


def too_long(longest: int, told: str, shorten: str = "prompt") -> str:
    """OpenAI's words for that error: some clients know it by these alone."""
    context = f"This model's maximum context length is {longest} tokens"
    return f"{context}. However, {told}. Please reduce the length of the {shorten}."


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An array of its fields. Token ids are bytes, int32 each: they are copied, not looked at one by one."""

    def pack(self) -> bytes:
        """Raises UnicodeEncodeError for a text that has no UTF-8 form."""
        return _ENCODER.encode(self)


def ids_of(packed: bytes) -> Int32:
    """A view of packed token ids."""
    return np.frombuffer(packed, np.int32)


def count_ids(packed: bytes) -> int:
    return len(packed) // _ID_BYTES


class Request(Record, frozen=True):
    """What a request asks for; validated by the front, in the terms of its API."""

    sampling: SamplingParams
    max_tokens: int
    stop: tuple[str, ...] = ()
    include_stop: bool = False  # keep the stop string in the text
    skip_special: bool = True
    ignore_eos: bool = False
    open_ended: bool = False  # the client named no limit: max_tokens may be cut to what fits
    raw_logit: bool = False  # `logprob` is the token's logit, as in llm-serving
    shown_ids: tuple[int, ...] = ()  # special tokens that are a part of the text in spite of `skip_special`
    adapter: str = ""  # its name; empty: the base model's own weights
    prompt_logprobs: int | None = None  # most probable tokens beside each of the prompt; None: it is not scored
    most_drafts: int = MANY_DRAFTS  # at a time, if the server has any
    deterministic: bool = False  # the same text whatever happens around it
    timeout_ms: int | None = None  # from its arrival to the end of its answer
    priority: int = 0  # behind that of its API key; the lowest is first


def unpack_request(packed: bytes) -> Request:
    return _REQUESTS.decode(packed)


# ---- front → preprocess ------------------------------------------------------------------------------------------

Prompt: TypeAlias = "str | array[int]"
"""Text to be tokenized, or token ids as array("i")."""


class Owner(NamedTuple):
    """Whose a request is, and how urgent. Tokens and rows are shared between keys, by weight, inside a class."""

    key: int = 0  # `ApiKey.number`; 0: no key is needed
    weight: float = 1.0
    priority: int = 0  # class; the lowest is first

    @property
    def background(self) -> bool:
        """Nobody waits for it."""
        return self.key < 0

    def in_background(self, weight: float) -> Owner:
        """A share of its own, with so much of the weight: what nobody waits for is no queue for what somebody does,
        and progresses nevertheless."""
        return Owner(-1 - self.key, weight * self.weight, self.priority)


NOBODY = Owner()

ALL_SCORED = 2**31 - 1
"""As `Choice.scored`: another choice of the same prompt has its scores."""


class Choice(Record, frozen=True):
    """One text that is wanted of a prompt. It goes on behind `output`, the tokens that its client has got already."""

    request: int
    seed: int | None = None
    attempt: int = 0
    output: bytes = b""  # token ids
    scored: int = 0  # positions of the prompt whose scores its client has, if they are wanted


class Submit(Record, frozen=True, tag=0):
    """Texts that are wanted of one prompt, which is tokenized once for all of them."""

    choices: tuple[Choice, ...]
    params: bytes  # a `Request`; its seed is not the choices' own
    text: str | None = None
    token_ids: bytes = b""  # the prompt, if it has no text
    add_special: bool = True  # let the tokenizer add BOS
    arrival_ns: int = 0
    plain: tuple[int, ...] = ()  # where the text spells special tokens that are none, as in `Tokenizer.render_chat`
    moved: bool = False  # it comes from another replica, and is not to hold up who is here
    suspect: bool = False  # it may have made a replica fail: it runs alone first
    owner: Owner = NOBODY
    deadline_ns: int = 0  # of the monotonic clock, by which its answer must be complete; 0: none

    @classmethod
    def of(
        cls,
        choices: Sequence[Choice],
        prompt: Prompt,
        request: Request,
        *,
        add_special: bool = True,
        arrival_ns: int = 0,
        plain: tuple[int, ...] = (),
        owner: Owner = NOBODY,
        deadline_ns: int = 0,
    ) -> Submit:
        text, ids = (prompt, b"") if isinstance(prompt, str) else (None, prompt.tobytes())
        about = (add_special, arrival_ns, plain)
        return cls(tuple(choices), request.pack(), text, ids, *about, owner=owner, deadline_ns=deadline_ns)

    def with_choices(self, choices: Sequence[Choice], *, moved: bool = False, suspect: bool = False) -> Submit:
        """The same prompt for these choices."""
        return msgspec.structs.replace(self, choices=tuple(choices), moved=moved, suspect=suspect)

    def arrived(self, now_ns: int) -> Submit:
        """The same, by the clock of the machine that it has come to."""
        deadline_ns = now_ns + self.deadline_ns - self.arrival_ns if self.deadline_ns else 0
        return msgspec.structs.replace(self, arrival_ns=now_ns, deadline_ns=deadline_ns)

    @property
    def request(self) -> int:
        """The first of its choices: what is said of all of them in short."""
        return self.choices[0].request

    @property
    def resumed(self) -> bool:
        """It was let in before, and is not turned away because the queue is full."""
        return self.choices[0].attempt > 0

    @property
    def size(self) -> int:
        """Of the prompt, in characters or token ids."""
        return count_ids(self.token_ids) if self.text is None else len(self.text)


class Cancel(Record, frozen=True, tag=1):
    """The client is gone."""

    request: int


class Encode(Record, frozen=True, tag=2):
    """A text whose tokens a client wants to know: nothing is generated. With more than `most` ids, only their number
    is told."""

    request: int
    attempt: int
    text: str
    most: int
    add_special: bool = True
    plain: tuple[int, ...] = ()  # as in `Submit`

    @property
    def size(self) -> int:
        """In characters."""
        return len(self.text)


class GoOn(Record, frozen=True, tag=3):
    """The front has room for the next token ids of a text."""

    request: int


Message: TypeAlias = Submit | Cancel | Encode | GoOn


def unpack_message(record: bytes) -> Message:
    return _MESSAGES.decode(record)


def choose_seeds(request: Request, count: int) -> list[int | None]:
    """Of so many choices: as in vLLM, each has the next one; drawn if the client named none, so that whoever computes
    a choice again draws the same tokens. None where nothing is drawn."""
    seed = request.sampling.seed
    if request.sampling.greedy:
        return [None] * count
    if seed in (None, -1):
        return [secrets.randbits(63) for _ in range(count)]
    return [seed, *((seed + index) % 2**64 for index in range(1, count))]  # 64 bits, wherever it comes from


# ---- preprocess → front ------------------------------------------------------------------------------------------


class Accepted(Record, frozen=True, tag=0):
    """The request is queued; what its prompt came to. It is there before the request's first token."""

    request: int
    attempt: int
    prompt_tokens: int
    first_id: int = -1  # of a prompt that is scored: its first token, which has no score


class Refused(Record, frozen=True, tag=1):
    """The request will not be served. `status` is the HTTP status, `parameter` what was wrong, `code` its name."""

    request: int
    attempt: int
    status: int
    message: str
    parameter: str | None = None
    code: str | None = None


class Started(Record, frozen=True, tag=2):
    """The request has got its first row, `waited_ns` after it arrived, and some of its prompt in the cache. It is
    there before the request's first token."""

    request: int
    attempt: int
    waited_ns: int
    cached_tokens: int = 0


class Encoded(Record, frozen=True, tag=3):
    """Some of the token ids of a text, of which there are `count` in all; more follow a `GoOn`, unless these are the
    last. So no answer takes more of the ring than a piece."""

    request: int
    attempt: int
    count: int
    ids: bytes
    last: bool


Reply: TypeAlias = Accepted | Refused | Started | Encoded


def unpack_reply(record: bytes) -> Reply:
    return _REPLIES.decode(record)


# ---- preprocess → sampling: which request has which row ----------------------------------------------------------


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
_NAME = 258  # of an adapter, at most


def longest_admit(max_length: int) -> int:
    """Bytes of the largest `Assign`, for sequences of `max_length` tokens; a character takes at most four."""
    biased = SamplingLimits(0, max_length).max_biased_tokens
    stops = MAX_STOPS * (4 * MAX_STOP_LENGTH + 5)
    return _NUMBER * _NUMBERS + 4 * max_length + _BIAS * biased + stops + _ENDS + _NAME + MAX_GRAMMAR_BYTES


_REQUESTS = msgspec.msgpack.Decoder(Request)
_MESSAGES: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_CHANGES: msgspec.msgpack.Decoder[RowChange] = msgspec.msgpack.Decoder(RowChange)
