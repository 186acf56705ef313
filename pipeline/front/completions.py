"""Requests in the form of OpenAI's /v1/completions."""

from __future__ import annotations

from typing import Any

from model.tokenizer import Tokenizer
from pipeline.front.completions_answer import CompletionChoice, completion_heading
from pipeline.front.fields import Fields, is_token_list
from pipeline.front.job import Job, Part
from pipeline.front.logprobs import CompletionLogprobs
from pipeline.front.openai_answer import OpenAIAnswer
from pipeline.front.openai_fields import (
    INVALID_STATUS,
    check_model,
    choice_params,
    read_choices,
    read_generation,
    read_sampling_params,
    read_stream_options,
    refuse_unsupported,
)
from pipeline.front.settings import FrontSettings

Prompt = str | list[int]
DEFAULT_TOKENS = 16


def parse_completion(body: dict[str, Any], request: int, tokenizer: Tokenizer | None, settings: FrontSettings) -> Job:
    """`tokenizer` None: no request may ask for what needs one. Raises ApiError 400; 404 for an unknown model."""
    fields = Fields(body, status=INVALID_STATUS)
    check_model(fields.text("model"), settings)
    streamed = fields.boolean("stream", False)
    options = read_stream_options(fields, streamed=streamed)
    prompts = _prompts(fields, settings.vocab_size)
    n = read_choices(fields, settings, len(prompts))
    logprobs = fields.integer("logprobs", None)
    sampling = read_sampling_params(fields, settings, logprobs)
    params = read_generation(fields, settings, sampling, "max_tokens", default=DEFAULT_TOKENS)
    echoes = _echoes(fields, prompts, tokenizer, settings, skip_special=params.skip_special)
    heading = completion_heading(request, settings.model_name)
    choices = [
        CompletionChoice(index, heading, options, _logprobs(fields, tokenizer, logprobs), echoes[index // n])
        for index in range(n * len(prompts))
    ]
    add_special = fields.boolean("add_special_tokens", True)
    every = [choice_params(params, index) for index in range(n)]
    _refuse_the_rest(fields, n)
    parts = tuple(Part(prompt, each, add_special) for prompt in prompts for each in every)
    return Job(parts, streamed, OpenAIAnswer(heading, options, choices, per_prompt=n))


def _prompts(fields: Fields, vocab_size: int) -> list[Prompt]:
    """A string, token ids, or a list of one of these."""
    prompt = fields.take("prompt")
    if prompt is None:
        raise fields.invalid("prompt", "prompt is missing: a string, a list of token ids, or a list of these")
    if isinstance(prompt, str) or is_token_list(prompt, vocab_size):
        return [prompt]
    if isinstance(prompt, list) and prompt and _alike(prompt, vocab_size):
        return prompt
    kinds = f"a string, a list of token ids in [0, {vocab_size - 1}], or a list of strings or of such lists"
    return fields.refuse("prompt", f"{kinds}, none of them empty")


def _alike(prompts: list[Any], vocab_size: int) -> bool:
    return all(isinstance(one, str) for one in prompts) or all(is_token_list(one, vocab_size) for one in prompts)


def _logprobs(fields: Fields, tokenizer: Tokenizer | None, top: int | None) -> CompletionLogprobs | None:
    if top is None:
        return None
    if tokenizer is None:
        fields.refuse("logprobs", "it left out: this server has no tokenizer at hand to name tokens")
    return CompletionLogprobs(tokenizer, top)


def _echoes(
    fields: Fields, prompts: list[Prompt], tokenizer: Tokenizer | None, settings: FrontSettings, *, skip_special: bool
) -> list[str]:
    """The text of each prompt, empty unless it is wanted."""
    if not fields.boolean("echo", False):
        return [""] * len(prompts)
    if fields.has("logprobs"):
        message = "echo with logprobs is not supported: log-probabilities of the prompt are not computed"
        raise fields.invalid("echo", message)

    def text(prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        if tokenizer is None:
            fields.refuse("echo", "false for a prompt of token ids: this server has no tokenizer at hand")
        # What is longer will be refused by preprocess; until then it must not keep others waiting.
        return tokenizer.decode(prompt[: settings.max_prompt], skip_special=skip_special)

    return [text(prompt) for prompt in prompts]


def _refuse_the_rest(fields: Fields, n: int) -> None:
    best_of = fields.integer("best_of", n)
    if best_of != n:
        fields.refuse("best_of", f"{n}, as n: answers are not ranked")
    if fields.text("suffix", "") != "":
        fields.refuse("suffix", "it left out: text is not inserted before a suffix")
    refuse_unsupported(fields)
