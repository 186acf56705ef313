"""Requests in the form of OpenAI's /v1/completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from model.tokenizer import Vocabulary
from pipeline.front.api.body import Problem, Reading
from pipeline.front.api.fields import Kind, also, as_token_ids, given, integer, only, read_text, refuse, token_id
from pipeline.front.api.openai.body import (
    INSTEAD,
    LABELS,
    MAX_CHOICES,
    ONLY_DEFAULTS,
    most_logprobs,
    needed_tokenizer,
    read_openai,
)
from pipeline.front.api.openai.completions_answer import CompletionChoice, CompletionWriter, PromptAlone, ShownPrompt
from pipeline.front.api.openai.scored import EchoScores, PromptLogprobs, ScoredBody, too_many_scores
from pipeline.front.api.sampling import least_above_most, limit, most_tokens
from pipeline.front.api.schema import WORDS, Schema
from pipeline.front.delivery.job import Identity, Job, Part
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Prompt

DEFAULT_TOKENS = 16


def _prompts(value: Any, settings: FrontSettings) -> list[Prompt]:
    """A string, token ids, or a list of one of these."""
    several = isinstance(value, list) and bool(value) and isinstance(value[0], str | list)
    prompts = value if several else [value]
    if len(prompts) > settings.max_queue:  # before each of very many prompts is looked at
        refuse(f"there are {len(prompts)} prompts; the queue has room for {settings.max_queue}")
    if isinstance(prompts[0], str):
        return [read_text(one, settings) for one in prompts]
    ids = [as_token_ids(one, settings.vocab_size) for one in prompts]
    found = [one for one in ids if one is not None]
    if len(found) < len(ids):
        raise ValueError
    return list(found)


def _prompts_schema(settings: FrontSettings) -> Schema:
    text: Schema = {"type": "string"}
    ids = {"type": "array", "items": token_id(settings), "minItems": 1}
    lists = [{"type": "array", "items": one, "minItems": 1} for one in (text, ids)]
    meaning = f"Prompts, as text or token ids, each of at most {settings.max_prompt} tokens."
    words = f"a string, a list of token ids in [0, {settings.vocab_size - 1}], or a list of strings or of such lists"
    return {"anyOf": [text, ids, *lists], "description": meaning, WORDS: f"{words}, none of them empty"}


@also({**ONLY_DEFAULTS, "messages tools functions": ([],)}, labels=LABELS, instead=INSTEAD)
class CompletionRequest(ScoredBody):
    prompt: Annotated[list[Any], Kind(_prompts, _prompts_schema)]
    max_tokens: Annotated[int | None, most_tokens(DEFAULT_TOKENS, least=0)] = given(
        None, "Most tokens to generate; 0, with echo or prompt_logprobs: the prompt alone."
    )
    logprobs: Annotated[int, integer(0, most_logprobs)] | None = given(
        None, "Return log-probabilities of the chosen token and of this many most probable ones."
    )
    echo: bool = given(False, "Begin the text with the prompt, and log-probabilities with its tokens.")
    best_of: Annotated[int, integer(1, MAX_CHOICES)] | None = given(None, "Must equal n: answers are not ranked.")
    suffix: Annotated[Any, only("", reason="text can't be inserted before a suffix")] = None
    add_special_tokens: bool = given(True, "Add BOS before a text prompt.")

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        most, texts = limit(self.max_tokens, DEFAULT_TOKENS, settings), self.n * len(self.prompt)
        yield from least_above_most(("min_tokens", "max_tokens"), self.min_tokens, most)
        if texts > settings.max_queue:
            told = f"{len(self.prompt)} prompts with n = {self.n} are {texts} sequences"
            yield "prompt", f"{told}; the queue has room for {settings.max_queue}"
        if self.best_of not in (None, self.n):
            yield "best_of", f"best_of is {self.best_of}, expected {self.n}, the same as n: answers are not ranked"
        if most == 0 and not self.echo and self.prompt_logprobs is None:
            yield "max_tokens", "max_tokens is 0, expected at least 1 unless echo is true or prompt_logprobs is given"
        if self.scored is not None:
            name = "echo" if self.prompt_logprobs is None else "prompt_logprobs"
            yield from too_many_scores(name, self.prompt, self.scored, self.n, settings)

    @property
    def echoed(self) -> int | None:
        """Most probable tokens beside each of the prompt that is echoed."""
        return self.logprobs if self.echo else None

    @property
    def scored(self) -> int | None:
        """Most probable tokens beside each of the prompt, whoever wants them."""
        return max((k for k in (self.echoed, self.prompt_logprobs) if k is not None), default=None)


def parse_completion(body: dict[str, Any], identity: Identity, tokenizer: Vocabulary | None, reading: Reading) -> Job:
    """`tokenizer` None: requests that need one are refused. Raises ApiError 400; 404 for an unknown model."""
    asked, settings = read_openai(CompletionRequest, body, reading), reading.settings
    names = None if asked.logprobs is None else needed_tokenizer(tokenizer, "logprobs")
    params = asked.request(settings, asked.max_tokens, DEFAULT_TOKENS, asked.logprobs, asked.scored)
    shown = [_shown(prompt, asked, tokenizer, settings) for prompt in asked.prompt]
    options, top = asked.options, asked.logprobs or 0
    writer = CompletionWriter(
        identity,
        settings.shown_model(asked.model),
        options,
        n=asked.n,
        prompts=shown,
        renamed={} if asked.echoed is None else {"prompt_logprobs": "echo"},
        names=names,
        top=top,
        kind=PromptAlone if asked.max_tokens == 0 else CompletionChoice,
    )
    parts = tuple(
        Part(prompt, params, asked.add_special_tokens, asked.n, scores=shows.scores)
        for prompt, shows in zip(asked.prompt, shown, strict=True)
    )
    return Job(parts, asked.stream, writer, asked.form, writer.measured if reading.timed else None)


def _shown(
    prompt: Prompt, asked: CompletionRequest, tokenizer: Vocabulary | None, settings: FrontSettings
) -> ShownPrompt:
    text = _text(prompt, asked, tokenizer, settings) if asked.echo else ""
    echo = listed = None
    if asked.echoed is not None:
        names, skip = needed_tokenizer(tokenizer, "echo"), asked.skip_special_tokens
        echo = EchoScores(names, asked.echoed, len(text), skip_special=skip)
    if asked.prompt_logprobs is not None:
        listed = PromptLogprobs(needed_tokenizer(tokenizer, "prompt_logprobs"), asked.prompt_logprobs)
    return ShownPrompt(text, echo, listed)


def _text(prompt: Prompt, asked: CompletionRequest, tokenizer: Vocabulary | None, settings: FrontSettings) -> str:
    """For `echo`. A prompt that is too long will be refused by preprocess; until then it must not block the loop."""
    if isinstance(prompt, str):
        return prompt
    ids = prompt[: settings.max_prompt]
    return needed_tokenizer(tokenizer, "echo").decode(ids, skip_special=asked.skip_special_tokens)
