"""Requests in llm-serving's form. Defaults and spellings are those of its clients."""

from __future__ import annotations

from typing import Any

from model.sampling import SamplingLimits, SamplingParams
from pipeline.front.fields import Fields
from pipeline.front.job import Job, check_sampling
from pipeline.front.llm_serving_answer import LlmServingAnswer
from pipeline.front.settings import FrontSettings
from pipeline.messages import GenerationParams

_INVALID = 422
_RENAMED = {"min_tokens": "min_new_tokens"}


def parse_llm_serving(body: dict[str, Any], request: int, streamed: bool | None, settings: FrontSettings) -> Job:
    """`streamed` None: as the body's "stream" says. Raises ApiError 422."""
    top = Fields(body, status=_INVALID)
    wanted = top.boolean("stream", False, spelled=True)
    prompt = top.text("inputs")
    if prompt is None:
        raise top.invalid("inputs", "inputs is missing: the prompt, a string")
    parameters = top.take("parameters", {})
    if not isinstance(parameters, dict):
        top.refuse("parameters", "an object")
    top.done()
    fields = Fields(parameters, status=_INVALID)
    params = _params(fields, settings)
    answer = _answer(fields, params, settings)
    fields.done()
    return Job(request, prompt, params, wanted if streamed is None else streamed, answer)


def _params(fields: Fields, settings: FrontSettings) -> GenerationParams:
    sampled = fields.boolean("do_sample", False, spelled=True)
    sampling = _sampling(fields, settings)
    check_sampling(sampling, SamplingLimits(settings.vocab_size, settings.max_length), _INVALID, _RENAMED)
    for name, allowed in _UNSUPPORTED.items():
        fields.only(name, *allowed)
    wanted = fields.integer("max_new_tokens", None, 1, settings.max_length)
    return GenerationParams(
        sampling if sampled else _greedy(sampling),
        max_tokens=wanted or min(DEFAULT_NEW_TOKENS, settings.max_length),
        stop=fields.texts("stop"),
        ignore_eos=fields.boolean("ignore_eos", False, spelled=True),
        open_ended=wanted is None,
        raw_logit=settings.llm_serving_raw_logit,
    )


DEFAULT_NEW_TOKENS = 300

_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "details": (False, "False"),
    "decoder_input_details": (False, "False"),
    "watermark": (False, "False"),
    "top_n_tokens": (0,),
    "truncate": (),
    "typical_p": (1, 1.0),
    "best_of": (1,),
}


def _sampling(fields: Fields, settings: FrontSettings) -> SamplingParams:
    return SamplingParams(
        temperature=fields.number("temperature", 1.0),
        top_k=_top_k(fields, settings.vocab_size),
        top_p=fields.number("top_p", 1.0),
        min_p=fields.number("min_p", 0.0),
        repetition_penalty=fields.number("repetition_penalty", 1.0),
        presence_penalty=fields.number("presence_penalty", 0.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0),
        seed=fields.integer("seed", None),
        logprobs=0 if settings.llm_serving_logprobs or settings.llm_serving_raw_logit else None,
        min_tokens=fields.integer("min_new_tokens", 0),
        stop_token_ids=fields.token_ids("stop_token_ids", settings.vocab_size),
    )


def _top_k(fields: Fields, vocab_size: int) -> int:
    """The known load client writes `topk_k` beside, or instead of, `top_k`."""
    misspelled = fields.integer("topk_k", None)
    top_k = fields.integer("top_k", 3 if misspelled is None else misspelled)
    if misspelled is not None and misspelled != top_k:
        raise fields.invalid("topk_k", f"topk_k is {misspelled}, but top_k is {top_k}; send one of them")
    return 0 if top_k >= vocab_size else int(top_k)


def _greedy(sampling: SamplingParams) -> SamplingParams:
    """do_sample false: the most probable token. Penalties still change which one that is."""
    return SamplingParams(
        temperature=0.0,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logprobs=sampling.logprobs,
        min_tokens=sampling.min_tokens,
        stop_token_ids=sampling.stop_token_ids,
    )


def _answer(fields: Fields, params: GenerationParams, settings: FrontSettings) -> LlmServingAnswer:
    protocol = fields.text("return_protocol", "sse")
    if protocol not in ("sse", "raw"):
        fields.refuse("return_protocol", "'sse' or 'raw'")
    return LlmServingAnswer(
        raw=protocol == "raw",
        whole_at_end=fields.boolean("return_full_text", False, spelled=True),
        seed=fields.integer("seed", 0),
    )
