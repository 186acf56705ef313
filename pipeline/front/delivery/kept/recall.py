"""A text of an answer while it is generated, and how a front comes to know what the one before has made of it."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from pipeline.front.delivery.job import Begin, ChoiceWriter, Event, Reader, events_of
from pipeline.front.delivery.kept.journal import Begun, Found, Origin, about_text, submits_of
from pipeline.front.delivery.progress import Progress
from pipeline.front.delivery.stream import PassOn, TokenStream, note_weights
from pipeline.front.http.errors import SERVER, ApiError
from pipeline.wire.delta import FinishReason, delta_head, unpack_delta
from pipeline.wire.request import Choice, Submit


@dataclass(slots=True)
class GeneratedText:
    """A text that is being generated."""

    choice: int
    writer: ChoiceWriter
    stream: TokenStream
    progress: Progress
    read: Reader | None = None  # None: it is all text
    begun: bool = False
    reason: FinishReason = FinishReason.NONE  # of its end, when the last token has arrived
    pass_on: PassOn | None = None  # once the stream to the client has begun


def remembered(found: Found, progresses: Sequence[Progress]) -> list[Submit]:
    """What was sent to preprocess, for texts behind the tokens that a front before has got. Raises ApiError 500."""
    output: defaultdict[int, array[int]] = defaultdict(lambda: array("i"))
    attempts = defaultdict[int, int](int)
    for record in found.records:
        if about_text(record) is None:
            request, attempts[request], _, token, _ = delta_head(record)
            output[request].append(token)
    submits = [
        submit.with_choices(
            [
                msgspec.structs.replace(
                    choice,
                    attempt=attempts[choice.request] + found.opened.barren,
                    output=output[choice.request].tobytes(),
                )
                for choice in submit.choices
            ]
        )
        for submit in submits_of(found.opened)
    ]
    requests = [choice.request for submit in submits for choice in submit.choices]
    if len(requests) != len(progresses):
        raise ApiError(500, "the request reads differently since the server's restart", kind=SERVER)
    for progress, request in zip(progresses, requests, strict=True):
        progress.request = request
    return submits


def ended_of(found: Found) -> set[int]:
    """Texts that need no more tokens: all of an answer that has ended."""
    if found.ended is not None:
        return {choice.request for submit in submits_of(found.opened) for choice in submit.choices}
    heads = [delta_head(record) for record in found.records if about_text(record) is None]
    return {request for request, _, _, _, reason in heads if reason}


def origins_of(found: Found) -> dict[int, list[tuple[int, str]]]:
    """Of each text which weights have computed it, as `TokenStream.weights` has it."""
    origins = defaultdict[int, list[tuple[int, str]]](list)
    for record in found.records:
        if isinstance(origin := about_text(record), Origin):
            note_weights(origins[origin.request], origin.first, origin.weights)
    return origins


def unfinished(submits: Sequence[Submit], ended: set[int]) -> list[Submit]:
    """With the choices that are not over, where there are any."""
    live = [(submit, [one for one in submit.choices if one.request not in ended]) for submit in submits]
    return [submit.with_choices(choices) for submit, choices in live if choices]


def recalled(
    records: Sequence[bytes], texts: Mapping[int, GeneratedText]
) -> Iterator[tuple[GeneratedText, list[Event]]]:
    """The events of an answer, in their order, from what was written down of it. `texts`: by request."""
    for record in records:
        about = about_text(record)
        if about is not None:
            if isinstance(about, Begun):
                yield _begin(about, texts[about.request])
            continue
        delta = unpack_delta(record)
        text = texts[delta.request]
        text.reason = delta.reason
        text.progress.recall()
        yield text, events_of(text.choice, [delta]) if text.read is None else text.read([delta])


def _begin(begun: Begun, text: GeneratedText) -> tuple[GeneratedText, list[Event]]:
    text.begun = True
    text.stream.accept(begun.prompt_tokens, -1)
    text.progress.prompt, text.progress.cached = begun.prompt_tokens, begun.cached_tokens
    return text, [Begin(text.choice, begun.prompt_tokens, begun.cached_tokens)]


def over(submit: Submit, choice: Choice, limit: int) -> TokenStream:
    """A stream to which nothing comes any more."""
    stream = TokenStream(submit, choice, limit)
    stream.stop()
    return stream
