"""Requests in the form of OpenAI's /v1/completions."""

from __future__ import annotations

from typing import Any

from model.tokenizer import Tokenizer
from pipeline.front.api.fields import Fields, as_token_ids
from pipeline.front.api.openai.completions_answer import CompletionWriter
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
from pipeline.wire.request import Prompt

DEFAULT_TOKENS = 16


def parse_completion(
    body: dict[str, Any], identity: Identity, tokenizer: Tokenizer | None, settings: FrontSettings
) -> Job:
    """`tokenizer` None: requests that need one are refused. Raises ApiError 400; 404 for an unknown model."""
    fields = Fields(body, status=INVALID_STATUS)
    check_model(fields.text("model"), settings)
    streamed = fields.boolean("stream", False)
    options = read_stream_options(fields, streamed=streamed)
    prompts, n = _prompts_and_n(fields, settings)
    logprobs = fields.integer("logprobs", None)
    sampling = read_sampling_params(fields, settings, logprobs)
    params = read_generation(fields, settings, sampling, "max_tokens", default=DEFAULT_TOKENS)
    echoes = _echoes(fields, prompts, tokenizer, settings, skip_special=params.skip_special)
    names = _names(fields, tokenizer, logprobs)
    writer = CompletionWriter(
        identity, settings.model_name, options, n=n, echoes=echoes, names=names, top=logprobs or 0
    )
    add_special = fields.boolean("add_special_tokens", True)
    _refuse_the_rest(fields, n)
    parts = tuple(Part(prompt, params, add_special, n) for prompt in prompts)
    return Job(parts, streamed, writer)


def _prompts_and_n(fields: Fields, settings: FrontSettings) -> tuple[list[Prompt], int]:
    """A string, token ids, or a list of one of these; and the number of choices for each."""
    prompt = fields.take("prompt")
    if prompt is None:
        expected = "a string, a list of token ids, or a list of these"
        raise fields.invalid("prompt", f"prompt is missing: expected {expected}")
    several = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], str | list)
    n = read_choices(fields, settings, len(prompt) if several else 1)  # before each of very many prompts is checked
    prompts = [_prompt(one, fields, settings) for one in (prompt if several else [prompt])]
    found = [one for one in prompts if one is not None and isinstance(one, str) is isinstance(prompts[0], str)]
    if len(found) < len(prompts):
        kinds = (
            f"a string, a list of token ids in [0, {settings.vocab_size - 1}], or a list of strings or of such lists"
        )
        fields.refuse("prompt", f"{kinds}, none of them empty")
    return found, n


def _prompt(one: Any, fields: Fields, settings: FrontSettings) -> Prompt | None:
    if isinstance(one, str):
        return fields.limit_text("prompt", one, settings.prompt_limit_chars, settings.max_prompt)
    return as_token_ids(one, settings.vocab_size)


def _names(fields: Fields, tokenizer: Tokenizer | None, logprobs: int | None) -> Tokenizer | None:
    """None: no log-probabilities are wanted."""
    if logprobs is not None and tokenizer is None:
        fields.refuse("logprobs", "no value: the front has no tokenizer, which log-probabilities need")
    return None if logprobs is None else tokenizer


def _echoes(
    fields: Fields, prompts: list[Prompt], tokenizer: Tokenizer | None, settings: FrontSettings, *, skip_special: bool
) -> list[str]:
    """The text of each prompt for `echo`, else empty."""
    if not fields.boolean("echo", False):
        return [""] * len(prompts)
    if fields.has("logprobs"):
        message = "echo with logprobs is not supported: log-probabilities of the prompt are not computed"
        raise fields.invalid("echo", message)

    def text(prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        if tokenizer is None:
            fields.refuse("echo", "false for a prompt of token ids: the front has no tokenizer")
        # A longer prompt will be refused by preprocess; until then it must not block the event loop.
        return tokenizer.decode(prompt[: settings.max_prompt], skip_special=skip_special)

    return [text(prompt) for prompt in prompts]


def _refuse_the_rest(fields: Fields, n: int) -> None:
    best_of = fields.integer("best_of", n)
    if best_of != n:
        fields.refuse("best_of", f"{n}, the same as n: answers are not ranked")
    if fields.text("suffix", "") != "":
        fields.refuse("suffix", "no value: inserting text before a suffix is not supported")
    refuse_unsupported(fields)
