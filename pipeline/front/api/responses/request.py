"""Requests in the form of OpenAI's /v1/responses. What would need a store is refused by name; answers made in the
background are kept for some time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import orjson
from pydantic import FailFast, Field

from model.tokenizer import Vocabulary
from pipeline.front.api.body import Body, Problem, Reading
from pipeline.front.api.chat.prompt import Chat, prompt_for
from pipeline.front.api.chat.tools import ToolUse, problems
from pipeline.front.api.fields import also, given, integer, only
from pipeline.front.api.openai.body import (
    INSTEAD,
    LABELS,
    ONLY_DEFAULTS,
    OpenAIBody,
    StreamSettings,
    needed_tokenizer,
    read_openai,
)
from pipeline.front.api.openai.chat import MAX_TOP_LOGPROBS
from pipeline.front.api.openai.tools import USUAL, tool_use
from pipeline.front.api.responses.answer import ResponsesWriter
from pipeline.front.api.responses.conversation import Input, messages_of
from pipeline.front.api.responses.tools import FlatToolChoice, ResponsesTools, offered
from pipeline.front.api.sampling import least_above_most, limit, most_tokens
from pipeline.front.api.structured import TextFormat
from pipeline.front.delivery.job import Form, Identity, Job
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Request

LOGPROBS: Final = "message.output_text.logprobs"
_NOT_STORED: Final = "answers are not stored here; send the items of earlier turns as input"
_ONLY: Final[Mapping[str, tuple[Any, ...]]] = {
    **ONLY_DEFAULTS,
    "n": (1,),
    "context_management": ([],),
    "image previous_input_messages prompt_logprobs": (),
    "media_io_kwargs mm_processor_kwargs": ({},),
    "enable_response_messages": (False,),
}
_OWN: Final = ("store", "metadata")
_LABELS: Final = " ".join([name for name in LABELS.split() if name not in _OWN]) + (
    " max_tool_calls client_metadata access_programs background_options"
)
_INSTEAD: Final = {
    **INSTEAD,
    "n_predict": "max_output_tokens",
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "max_output_tokens"),
    "messages": "input",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": f"top_logprobs, and include {LOGPROBS}",
    "functions": "tools",
}
_REPEATED: Final = ("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "top_logprobs")


@also({}, labels="verbosity")
class TextSettings(Body):
    PLACE = "text."

    format: TextFormat = None


@also({}, labels="summary generate_summary context mode")
class ReasoningSettings(Body):
    PLACE = "reasoning."

    effort: str | None = given(None, "Given to the model's chat template, if this asks for it.")


class ResponsesStreaming(StreamSettings):
    """Only with stream: true."""

    include_usage: Annotated[Any, only(False, reason="the last event has it")] = None
    continuous_usage_stats: Annotated[Any, only(False)] = None


_Included = Annotated[str, only(LOGPROBS, "reasoning.encrypted_content")]


@also(_ONLY, labels=_LABELS, instead=_INSTEAD)
class ResponsesRequest(OpenAIBody):
    input: Input
    instructions: str | None = given(None, "A system message before the input.")
    max_output_tokens: Annotated[int | None, most_tokens()] = given(
        None, "Most tokens to generate; by default as many as fit."
    )
    tools: ResponsesTools = given([], "Tools that the model may call.")
    tool_choice: FlatToolChoice | None = None
    parallel_tool_calls: bool = given(True, "There may be several calls in one answer.")
    text: TextSettings = given(TextSettings.model_validate({}), "The form of the answer's text.")
    reasoning: ReasoningSettings = given(ReasoningSettings.model_validate({}), "How the model thinks.")
    include: Annotated[list[_Included], FailFast()] = given(
        [], "What the answer should have besides; encrypted reasoning is never there."
    )
    top_logprobs: Annotated[int, integer(0, MAX_TOP_LOGPROBS)] = given(
        0, f"Return log-probabilities of this many most probable tokens, too; needs include with {LOGPROBS}."
    )
    stream_options: ResponsesStreaming | None = None
    metadata: dict[str, str] = Field(default_factory=dict, description="Repeated in the answer.")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="More variables for the model's chat template."
    )
    store: Annotated[Any, only(False, reason="answers are not stored here; leave it out")] = None
    background: bool = given(
        False, "Go on without the client, which asks for the answer by its id, for at most pipeline.max_detached_s."
    )
    previous_response_id: Annotated[Any, only(reason=_NOT_STORED)] = None
    conversation: Annotated[Any, only(reason=_NOT_STORED)] = None
    prompt: Annotated[Any, only(reason="prompts are not stored here; send instructions and input")] = None
    truncation: Annotated[Any, only("disabled", reason="input that is too long is refused, not cut")] = None

    @property
    def forms(self) -> list[Form]:
        return [*super().forms, *([] if self.text.format is None else [self.text.format])]

    @property
    def logprobs_wanted(self) -> bool:
        return LOGPROBS in self.include

    @property
    def tool_use(self) -> ToolUse:
        tools = [tool for tool, _ in offered(self.tools)]
        return tool_use(tools, self.tool_choice or USUAL, parallel=self.parallel_tool_calls)

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        yield from problems(self.tool_use)
        most = limit(self.max_output_tokens, settings.max_length, settings)
        yield from least_above_most(("min_tokens", "max_output_tokens"), self.min_tokens, most)
        if self.background and not settings.max_detached_s:
            yield "background", "background is true, expected false: no answers are kept here"
        if self.top_logprobs and not self.logprobs_wanted:
            told = f"top_logprobs is {self.top_logprobs}, expected 0 unless include has {LOGPROBS}"
            yield "top_logprobs", told

    def chat(self) -> Chat:
        return Chat(
            messages_of(self.input, self.instructions),
            self.tool_use,
            self.form,
            variables=self.chat_template_kwargs,
            effort=self.reasoning.effort,
            parameter="input",
        )

    def repeated(self, body: Mapping[str, Any], params: Request, model: str) -> dict[str, Any]:
        """What the answer has of its request, as the client wrote it."""
        text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
        return {
            "model": model,
            "background": self.background,
            "previous_response_id": None,
            "store": False,
            **{name: getattr(self, name) for name in _REPEATED},
            "reasoning": {"effort": self.reasoning.effort, "summary": reasoning.get("summary")},
            "temperature": params.sampling.temperature,
            "text": {**text, "format": text.get("format") or {"type": "text"}},
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "top_p": params.sampling.top_p,
            "truncation": "disabled",
        }


def _written(repeated: dict[str, Any]) -> bytes:
    """As JSON. Raises ApiError 400 for what can't be written, though it could be read."""
    try:
        return orjson.dumps(repeated)
    except orjson.JSONEncodeError:
        deep = next(name for name in repeated if not _writable(repeated[name]))
        raise ApiError(400, f"{deep} has too many levels", parameter=deep) from None


def _writable(value: Any) -> bool:
    with contextlib.suppress(orjson.JSONEncodeError):
        return bool(orjson.dumps(value))
    return False


def parse_responses(body: dict[str, Any], identity: Identity, tokenizer: Vocabulary | None, reading: Reading) -> Job:
    """Raises ApiError 400; 404 for an unknown model."""
    asked, settings = read_openai(ResponsesRequest, body, reading), reading.settings
    names = needed_tokenizer(tokenizer, "include") if asked.logprobs_wanted else None
    prompt = prompt_for(asked.chat(), tokenizer, settings, every_token=names is not None)
    logprobs = None if names is None else asked.top_logprobs
    params = asked.request(settings, asked.max_output_tokens, settings.max_length, logprobs)
    writer = ResponsesWriter(
        identity,
        _written(asked.repeated(body, params, settings.shown_model(asked.model))),
        tools={tool.name: called for tool, called in offered(asked.tools)},
        names=names,
        renamed={"prompt": "input", "max_tokens": "max_output_tokens"},
    )
    part = prompt.part(params, add_special=prompt.needs_bos(tokenizer, wanted=False))
    return Job((part,), asked.stream, writer, prompt.form, reader=prompt.reader, pending=writer.queued)
