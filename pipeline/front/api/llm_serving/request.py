"""Requests in llm-serving's form. Defaults and spellings are those of its clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from model.sampling import SamplingParams
from model.tokenizer import Vocabulary
from pipeline.front.api.body import Body, Problem, Reading, read
from pipeline.front.api.fields import Switch, TextPrompt, also, given, integer
from pipeline.front.api.llm_serving.answer import LlmServingWriter, Prefill
from pipeline.front.api.sampling import (
    FewestTokens,
    SamplingBody,
    TopK,
    least_above_most,
    limit,
    most_tokens,
    open_ended,
)
from pipeline.front.api.structured import TgiGrammar
from pipeline.front.delivery.job import Job, Part
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Request

_INVALID = 422
DEFAULT_NEW_TOKENS = 300
DEFAULT_TOP_K = 3


@also(
    {
        "watermark": (False, "False", "false"),
        "top_n_tokens": (0,),
        "truncate": (),
        "typical_p best_of": (1,),
    }
)
class GenerateParameters(SamplingBody):
    do_sample: Switch = given(False, "Sample; false: greedy, always the most probable token.")
    max_new_tokens: Annotated[int | None, most_tokens(DEFAULT_NEW_TOKENS)] = given(None, "Most tokens to generate.")
    min_new_tokens: FewestTokens = given(0, "Fewest tokens before the answer may end; at most max_new_tokens.")
    top_k: TopK | None = Field(None, json_schema_extra={"default": DEFAULT_TOP_K})
    topk_k: Annotated[int, integer(-1)] | None = given(None, "Other name of top_k; both must be equal if given.")
    ignore_eos: Switch = given(False, "Do not stop at the model's end tokens.")
    details: Switch = given(False, "Write details as text-generation-inference does, with the whole answer.")
    decoder_input_details: Switch = given(
        False, "Let prefill be the prompt's tokens with their log-probabilities; of a stream with return_full_text."
    )
    return_full_text: Switch = given(False, "End a stream with a line that holds the whole answer.")
    grammar: TgiGrammar = None
    return_protocol: Literal["sse", "raw"] = given("sse", "Format of a stream's lines.")

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        if None not in (self.top_k, self.topk_k) and self.top_k != self.topk_k:
            yield "topk_k", f"topk_k is {self.topk_k}, but top_k is {self.top_k}; send only one of them"
        most = limit(self.max_new_tokens, DEFAULT_NEW_TOKENS, settings)
        yield from least_above_most(("min_new_tokens", "max_new_tokens"), self.min_new_tokens, most)

    def request(self, settings: FrontSettings, adapter: str) -> Request:
        given = [k for k in (self.top_k, self.topk_k) if k is not None]
        sampling = self.sampling(
            settings,
            top_k=given[0] if given else DEFAULT_TOP_K,
            min_tokens=self.min_new_tokens,
            logprobs=0 if settings.llm_serving_logprobs or settings.llm_serving_raw_logit else None,
        )
        return Request(
            sampling if self.do_sample else _greedy(sampling),
            max_tokens=limit(self.max_new_tokens, DEFAULT_NEW_TOKENS, settings),
            stop=self.stop,
            ignore_eos=self.ignore_eos,
            open_ended=open_ended(self.max_new_tokens),
            raw_logit=settings.llm_serving_raw_logit,
            adapter=adapter,
            prompt_logprobs=0 if self.decoder_input_details else None,
            most_drafts=self.most_drafts,
            deterministic=self.is_deterministic(settings),
        )


class GenerateRequest(Body):
    inputs: TextPrompt
    parameters: GenerateParameters = GenerateParameters.model_validate({})
    stream: Switch = given(False, "Stream the answer; only for /models/{model}, the other paths ignore it.")

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from self.parameters.conflicts(settings)


def parse_llm_serving(
    body: dict[str, Any],
    streamed: bool | None,
    reading: Reading,
    adapter: str = "",
    tokenizer: Vocabulary | None = None,
) -> Job:
    """`streamed` None: as the body's "stream" says. Raises ApiError 422."""
    asked = read(GenerateRequest, body, reading, status=_INVALID)
    parameters, streams = asked.parameters, asked.stream if streamed is None else streamed
    prefill = _prefill(parameters, tokenizer, shown=parameters.return_full_text or not streams)
    writer = LlmServingWriter(
        raw=parameters.return_protocol == "raw",
        whole_at_end=parameters.return_full_text,
        seed=parameters.seed or 0,
        details=parameters.details,
        prefill=prefill,
    )
    scores = () if prefill is None else (prefill,)
    part = Part(asked.inputs, parameters.request(reading.settings, adapter), scores=scores)
    return Job((part,), streams, writer, parameters.grammar)


def _prefill(parameters: GenerateParameters, tokenizer: Vocabulary | None, *, shown: bool) -> Prefill | None:
    """`shown`: the answer has a place for it."""
    if not parameters.decoder_input_details:
        return None
    name = "decoder_input_details"
    if tokenizer is None or not shown:
        why = "the front has no tokenizer" if shown else "a stream has it in its last line: set return_full_text"
        raise ApiError(_INVALID, f"{name} is not available: {why}", parameter=name)
    return Prefill(tokenizer)


def _greedy(sampling: SamplingParams) -> SamplingParams:
    """do_sample false: the most probable token, after penalties."""
    return msgspec.structs.replace(sampling, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=None)
