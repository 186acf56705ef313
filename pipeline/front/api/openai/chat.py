"""Requests in the form of OpenAI's /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from model.tokenizer import Vocabulary
from pipeline.front.api.body import Problem, Reading
from pipeline.front.api.chat.prompt import prompt_for
from pipeline.front.api.fields import also, given, integer, only
from pipeline.front.api.openai.body import INSTEAD, LABELS, ONLY_DEFAULTS, needed_tokenizer, read_openai
from pipeline.front.api.openai.chat_answer import ChatWriter, Shown
from pipeline.front.api.openai.conversation import Conversation
from pipeline.front.api.openai.scored import PromptLogprobs, ScoredBody, too_many_scores
from pipeline.front.api.sampling import least_above_most, limit, most_tokens
from pipeline.front.delivery.job import Identity, Job
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings

MAX_TOP_LOGPROBS = 20
TEXT_ONLY: Mapping[str, tuple[Any, ...]] = {
    "function_call": ("none", "auto"),  # without functions both mean the same
    "reasoning_format": ("auto", "deepseek", "deepseek-legacy"),
    "parse_tool_calls": (True,),
    "modalities": (["text"],),
    "audio web_search_options chat_template": (),
    "echo": (False,),
    "prompt suffix": ("",),
    "best_of": (1,),
    "documents": ([],),
    "media_io_kwargs mm_processor_kwargs": ({},),
}
"""Known to change the answer, and supported at these values only."""

_LABELS: Final = "verbosity thinking_forced_open generation_prompt"

_NO_FUNCTIONS = only([], reason="use tools")


@also({**ONLY_DEFAULTS, **TEXT_ONLY}, labels=f"{LABELS} {_LABELS}", instead=INSTEAD)
class ChatRequest(Conversation, ScoredBody):
    max_completion_tokens: Annotated[int | None, most_tokens()] = given(
        None, "Most tokens to generate; by default as many as fit."
    )
    max_tokens: Annotated[int | None, most_tokens()] = given(
        None, "Older name of max_completion_tokens; both must be equal if given."
    )
    logprobs: bool = given(False, "Return log-probabilities of the chosen tokens.")
    top_logprobs: Annotated[int, integer(0, MAX_TOP_LOGPROBS)] = given(
        0, "Return log-probabilities of this many most probable tokens, too; needs logprobs."
    )
    add_special_tokens: bool = given(False, "Add BOS before the prompt; most templates write it themselves.")
    include_reasoning: bool = given(True, "Return what the model writes before its answer, where this is known.")
    functions: Annotated[Any, _NO_FUNCTIONS] = None

    @property
    def limit_name(self) -> str:
        """The name under which the client gives the limit."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    @property
    def wanted(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        if None is not self.max_tokens != self.wanted:
            told = f"max_tokens is {self.max_tokens}, expected the same as max_completion_tokens ({self.wanted})"
            yield "max_tokens", f"{told}; or send only one of them"
        most = limit(self.wanted, settings.max_length, settings)
        yield from least_above_most(("min_tokens", self.limit_name), self.min_tokens, most)
        if self.top_logprobs and not self.logprobs:
            yield "top_logprobs", f"top_logprobs is {self.top_logprobs}, expected 0 unless logprobs is true"


def parse_chat(body: dict[str, Any], identity: Identity, tokenizer: Vocabulary | None, reading: Reading) -> Job:
    """Raises ApiError 400; 404 for an unknown model."""
    asked, settings = read_openai(ChatRequest, body, reading), reading.settings
    prompt = prompt_for(asked.chat(asked.form), tokenizer, settings, every_token=asked.logprobs)
    logprobs = asked.top_logprobs if asked.logprobs else None
    params = asked.request(settings, asked.wanted, settings.max_length, logprobs, asked.prompt_logprobs)
    listed = None
    if asked.prompt_logprobs is not None:
        for name, told in too_many_scores("prompt_logprobs", [prompt.text], asked.prompt_logprobs, asked.n, settings):
            raise ApiError(400, told, parameter=name)
        listed = PromptLogprobs(needed_tokenizer(tokenizer, "prompt_logprobs"), asked.prompt_logprobs)
    writer = ChatWriter(
        identity,
        settings.shown_model(asked.model),
        asked.options,
        n=asked.n,
        renamed={"prompt": "messages", "max_tokens": asked.limit_name},
        names=tokenizer if asked.logprobs else None,
        shown=Shown(asked.include_reasoning, asked.tool_use.custom),
        listed=listed,
    )
    add_special = prompt.needs_bos(tokenizer, wanted=asked.add_special_tokens)
    scores = () if listed is None else (listed,)
    parts = (prompt.part(params, add_special=add_special, choices=asked.n, scores=scores),)
    measured = writer.measured if reading.timed else None
    return Job(parts, asked.stream, writer, prompt.form, measured, prompt.reader)
