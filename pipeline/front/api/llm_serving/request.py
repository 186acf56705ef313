"""Requests in llm-serving's form. Defaults and spellings are those of its clients."""

from __future__ import annotations

from typing import Any

import msgspec

from model.sampling import SamplingParams
from pipeline.front.api.fields import Fields
from pipeline.front.api.llm_serving.answer import LlmServingWriter
from pipeline.front.api.sampling import check_min_tokens, read_max_tokens, read_sampling
from pipeline.front.delivery.job import Job, Part
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Request

_INVALID = 422
DEFAULT_NEW_TOKENS = 300
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "details": (False, "False", "false"),
    "decoder_input_details": (False, "False", "false"),
    "watermark": (False, "False", "false"),
    "top_n_tokens": (0,),
    "truncate": (),
    "typical_p": (1, 1.0),
    "best_of": (1,),
}


def parse_llm_serving(body: dict[str, Any], streamed: bool | None, settings: FrontSettings) -> Job:
    """`streamed` None: as the body's "stream" says. Raises ApiError 422."""
    top = Fields(body, status=_INVALID)
    wanted = top.boolean("stream", False, spelled=True)
    prompt = top.text("inputs")
    if prompt is None:
        raise top.invalid("inputs", "inputs is missing: expected the prompt, a string")
    top.limit_text("inputs", prompt, settings.prompt_limit_chars, settings.max_prompt)
    fields = Fields(top.mapping("parameters"), status=_INVALID)
    top.done()
    params, answer = _params(fields, settings), _answer(fields)
    fields.done()
    return Job((Part(prompt, params),), wanted if streamed is None else streamed, answer)


def _params(fields: Fields, settings: FrontSettings) -> Request:
    sampled = fields.boolean("do_sample", False, spelled=True)
    logprobs = 0 if settings.llm_serving_logprobs or settings.llm_serving_raw_logit else None
    top_k = _top_k(fields)
    sampling = read_sampling(fields, settings, top_k=top_k, logprobs=logprobs, min_tokens="min_new_tokens")
    limit, open_ended = read_max_tokens(fields, settings, "max_new_tokens", default=DEFAULT_NEW_TOKENS)
    check_min_tokens(fields, sampling, limit, ("min_new_tokens", "max_new_tokens"))
    fields.restrict(UNSUPPORTED)
    return Request(
        sampling if sampled else _greedy(sampling),
        max_tokens=limit,
        stop=fields.texts("stop"),
        ignore_eos=fields.boolean("ignore_eos", False, spelled=True),
        open_ended=open_ended,
        raw_logit=settings.llm_serving_raw_logit,
    )


def _top_k(fields: Fields) -> int:
    """The known load client writes `topk_k` beside, or instead of, `top_k`."""
    misspelled = fields.integer("topk_k", None)
    top_k: int = fields.integer("top_k", 3 if misspelled is None else misspelled)
    if misspelled is not None and misspelled != top_k:
        raise fields.invalid("topk_k", f"topk_k is {misspelled}, but top_k is {top_k}; send only one of them")
    return top_k


def _greedy(sampling: SamplingParams) -> SamplingParams:
    """do_sample false: the most probable token, after penalties."""
    return msgspec.structs.replace(sampling, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=None)


def _answer(fields: Fields) -> LlmServingWriter:
    protocol = fields.text("return_protocol", "sse")
    if protocol not in ("sse", "raw"):
        fields.refuse("return_protocol", "'sse' or 'raw'")
    return LlmServingWriter(
        raw=protocol == "raw",
        whole_at_end=fields.boolean("return_full_text", False, spelled=True),
        seed=fields.integer("seed", 0),
    )
