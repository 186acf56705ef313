"""Requests in the form of OpenAI's /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.tokenizer import Tokenizer
from pipeline.front.api.fields import Fields, shown
from pipeline.front.api.openai.chat_answer import ChatWriter
from pipeline.front.api.openai.chat_messages import read_prompt
from pipeline.front.api.openai.fields import (
    INVALID_STATUS,
    check_model,
    read_choices,
    read_generation,
    read_sampling_params,
    read_stream_options,
    refuse_unsupported,
)
from pipeline.front.delivery.job import Identity, Job, Part
from pipeline.front.settings import FrontSettings

MAX_TOP_LOGPROBS = 20
TEXT_ONLY: Mapping[str, tuple[Any, ...]] = {
    "tool_choice": ("none",),
    "function_call": ("none",),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "include_reasoning": (True,),
    "verbosity": ("medium",),
    "parallel_tool_calls": (True, False),  # without tools both mean the same
    "echo": (False,),
    "documents": ([],),
    "chat_template": (),
    "return_prompt_text": (False,),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
}


def parse_chat(body: dict[str, Any], identity: Identity, tokenizer: Tokenizer | None, settings: FrontSettings) -> Job:
    """Raises ApiError 400; 404 for an unknown model."""
    fields = Fields(body, status=INVALID_STATUS)
    check_model(fields.text("model"), settings)
    streamed = fields.boolean("stream", False)
    options = read_stream_options(fields, streamed=streamed)
    _refuse_tools(fields)
    prompt = read_prompt(fields, tokenizer, settings)
    n, logprobs = read_choices(fields, settings), _read_logprobs(fields)
    limit = _limit_name(fields)
    sampling = read_sampling_params(fields, settings, logprobs)
    params = read_generation(fields, settings, sampling, limit, default=settings.max_length)
    add_special = fields.boolean("add_special_tokens", False)  # the template writes BOS
    refuse_unsupported(fields)
    renamed = {"prompt": "messages", "max_tokens": limit}
    names = None if logprobs is None else tokenizer
    writer = ChatWriter(identity, settings.model_name, options, n=n, renamed=renamed, names=names)
    return Job((Part(prompt, params, add_special, n),), streamed, writer)


def _refuse_tools(fields: Fields) -> None:
    for name in ("tools", "functions"):
        if fields.take(name) not in (None, []):
            raise fields.invalid(name, f"{name} are not supported: answers are text, never tool calls")
    fields.restrict(TEXT_ONLY)


def _limit_name(fields: Fields) -> str:
    """`max_tokens` is the older name; a client may send both if they are equal."""
    new, old = fields.take("max_completion_tokens"), fields.take("max_tokens")
    both = new is not None and old is not None
    if both and not (isinstance(new, int) and isinstance(old, int) and new == old):  # they may be nested deeply
        fields.refuse("max_tokens", f"the same as max_completion_tokens ({shown(new)}); or send only one of them")
    return "max_tokens" if new is None else "max_completion_tokens"


def _read_logprobs(fields: Fields) -> int | None:
    """How many of the most probable tokens are reported with each; None: no log-probabilities."""
    top: int = fields.integer("top_logprobs", 0, 0, MAX_TOP_LOGPROBS)
    wanted = fields.boolean("logprobs", False)
    if top and not wanted:
        fields.refuse("top_logprobs", "0 unless logprobs is true")
    return top if wanted else None
