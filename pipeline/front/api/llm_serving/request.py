"""Requests in llm-serving's form. Defaults and spellings are those of its clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from model.sampling import SamplingParams
from pipeline.front.api.body import Body, Problem, read
from pipeline.front.api.fields import Switch, TextPrompt, Unsupported, integer, only
from pipeline.front.api.llm_serving.answer import LlmServingWriter
from pipeline.front.api.sampling import (
    MIN_TOKENS,
    TOP_K,
    FewestTokens,
    SamplingBody,
    least_above_most,
    limit,
    most_tokens,
)
from pipeline.front.delivery.job import Job, Part
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Request

_INVALID = 422
DEFAULT_NEW_TOKENS = 300
TOP_K_BY_DEFAULT = 3

TopK = Annotated[int, integer(-1)]
No = Annotated[Any, only(False, "False", "false")]


class GenerateParameters(SamplingBody):
    do_sample: Switch = Field(False, description="Sample; false: greedy, always the most probable token.")
    max_new_tokens: Annotated[int, most_tokens(DEFAULT_NEW_TOKENS)] | None = Field(
        None, description="Most tokens to generate. The default is reduced to what fits."
    )
    min_new_tokens: FewestTokens = Field(0, description=MIN_TOKENS + "max_new_tokens.")
    top_k: TopK | None = Field(None, description=TOP_K, json_schema_extra={"default": TOP_K_BY_DEFAULT})
    topk_k: TopK | None = Field(
        None, description="Alias of top_k that some clients send. If both are given, they must be equal."
    )
    ignore_eos: Switch = Field(False, description="Do not stop at the model's end tokens.")
    return_full_text: Switch = Field(False, description="End a stream with a line that holds the whole answer.")
    return_protocol: Literal["sse", "raw"] = Field("sse", description="Format of a stream's lines.")

    # Known, and supported at these values only.
    details: No = None
    decoder_input_details: No = None
    watermark: No = None
    top_n_tokens: Annotated[Any, only(0)] = None
    truncate: Unsupported = None
    typical_p: Annotated[Any, only(1)] = None
    best_of: Annotated[Any, only(1)] = None

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        if None not in (self.top_k, self.topk_k) and self.top_k != self.topk_k:
            yield "topk_k", f"topk_k is {self.topk_k}, but top_k is {self.top_k}; send only one of them"
        most = limit(self.max_new_tokens, DEFAULT_NEW_TOKENS, settings)
        yield from least_above_most(("min_new_tokens", "max_new_tokens"), self.min_new_tokens, most)

    def request(self, settings: FrontSettings) -> Request:
        given = [k for k in (self.top_k, self.topk_k) if k is not None]
        sampling = self.sampling(
            settings,
            top_k=given[0] if given else TOP_K_BY_DEFAULT,
            min_tokens=self.min_new_tokens,
            logprobs=0 if settings.llm_serving_logprobs or settings.llm_serving_raw_logit else None,
        )
        return Request(
            sampling if self.do_sample else _greedy(sampling),
            max_tokens=limit(self.max_new_tokens, DEFAULT_NEW_TOKENS, settings),
            stop=self.stop,
            ignore_eos=self.ignore_eos,
            open_ended=self.max_new_tokens is None,
            raw_logit=settings.llm_serving_raw_logit,
        )


class GenerateRequest(Body):
    inputs: TextPrompt = Field(description="The prompt.")
    parameters: GenerateParameters = GenerateParameters.model_validate({})
    stream: Switch = Field(
        False, description="Stream the answer; only for /models/{model}, the other paths ignore it."
    )

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from self.parameters.conflicts(settings)


def parse_llm_serving(body: dict[str, Any], streamed: bool | None, settings: FrontSettings) -> Job:
    """`streamed` None: as the body's "stream" says. Raises ApiError 422."""
    asked = read(GenerateRequest, body, settings, status=_INVALID)
    parameters = asked.parameters
    writer = LlmServingWriter(
        raw=parameters.return_protocol == "raw",
        whole_at_end=parameters.return_full_text,
        seed=parameters.seed or 0,
    )
    part = Part(asked.inputs, parameters.request(settings))
    return Job((part,), asked.stream if streamed is None else streamed, writer)


def _greedy(sampling: SamplingParams) -> SamplingParams:
    """do_sample false: the most probable token, after penalties."""
    return msgspec.structs.replace(sampling, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=None)
