"""Requests in the form of Anthropic's /v1/messages and /v1/messages/count_tokens.

What belongs to Anthropic's own service, such as metadata, tiers and hints for its caches, is accepted without effect;
what would change the answer takes effect or is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import ConfigDict, FailFast, Field

from model.tokenizer import Vocabulary
from pipeline.front.api.anthropic.answer import Asked, MessagesWriter
from pipeline.front.api.anthropic.blocks import Texts, Turn, messages_of
from pipeline.front.api.anthropic.errors import NO_THREADS
from pipeline.front.api.anthropic.tools import ToolChoice, Tools, tool_use
from pipeline.front.api.body import Body, Problem, Reading
from pipeline.front.api.chat.prompt import Chat, Prompted, prompt_for
from pipeline.front.api.chat.tools import ToolUse, problems
from pipeline.front.api.fields import StopStrings, also, given, integer, only
from pipeline.front.api.openai.body import INVALID_STATUS, ModelName, read_openai
from pipeline.front.api.openai.conversation import NoMoreThanTokens
from pipeline.front.api.sampling import DeterministicBody, TopK, left_out, sampled, sampling_of, top_p
from pipeline.front.api.structured import OutputConfigFormat, OutputFormat
from pipeline.front.delivery.job import Form, Identity, Job
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Request

B = TypeVar("B", bound=Body)

_SAMPLED: Final = ("temperature", "top_p", "top_k")
_DISABLED: Final = "disabled"
_ONLY: Final[Mapping[str, tuple[Any, ...]]] = {"mcp_servers": ([],), "container compaction thread": ()}
_LABELS: Final = (
    "metadata service_tier cache_control diagnostics inference_geo speed user_profile_id workspace_id "
    "billing_policy fallbacks fallback_credit_token betas anthropic_version anthropic_beta"
)
_OF_ANSWERS: Final = "max_tokens stop_sequences temperature top_p top_k stream"


class ThinkingSettings(Body):
    PLACE: ClassVar[str] = "thinking."

    type: Annotated[str, only("enabled", "adaptive", _DISABLED)]
    budget_tokens: Annotated[int, integer(1)] | None = given(
        None, "Accepted without effect: max_tokens is the limit."
    )
    display: Annotated[str, only("summarized", "omitted")] | None = given(
        None, "omitted: what the model thinks is left out of the answer."
    )


class OutputSettings(Body):
    PLACE: ClassVar[str] = "output_config."

    effort: str | None = given(None, "Given to the model's chat template, if this asks for it.")
    format: OutputConfigFormat = None


class ContextEdit(Body):
    """Other members are ignored: nothing is cleared."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[str, only("clear_thinking_20251015", "clear_tool_uses_20250919")]


class ContextManagement(Body):
    PLACE: ClassVar[str] = "context_management."

    edits: Annotated[list[ContextEdit], FailFast()] = given(
        [], "Accepted without effect: a prompt that is too long is refused."
    )


@also(_ONLY, labels=_LABELS)
class MessagesInput(Body):
    """What a prompt is rendered from."""

    model: ModelName = None
    messages: Annotated[list[Turn], FailFast(), Field(min_length=1), NoMoreThanTokens()] = Field(
        description="The conversation. A last message of the assistant is continued."
    )
    system: Texts = given("", "A system message before the conversation.")
    tools: Tools = given([], "Tools that the model may call.")
    tool_choice: ToolChoice | None = given(None, "Which tools the model may call.")
    thinking: ThinkingSettings | None = given(
        None, "Whether the model thinks before it answers, where its chat template has a switch for that."
    )
    output_config: OutputSettings = OutputSettings.model_validate({})
    output_format: OutputFormat = None
    context_management: ContextManagement | None = None

    @property
    def tool_use(self) -> ToolUse:
        return tool_use(self.tools, self.tool_choice)

    @property
    def form(self) -> Form | None:
        """Of the answer's text."""
        found: Form | None = self.output_format or self.output_config.format
        return found

    @property
    def thinks(self) -> bool:
        """The client wants to see it."""
        asked = self.thinking
        return asked is None or (asked.type != _DISABLED and asked.display != "omitted")

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        for index, turn in enumerate(self.messages):
            yield from turn.problems(f"messages[{index}]")
        yield from problems(self.tool_use)
        if self.output_format and self.output_config.format:
            both = "output_format and output_config.format are both given; send only one of them"
            yield "output_format", both

    def prompt(self, tokenizer: Vocabulary | None, settings: FrontSettings) -> Prompted:
        """Raises ApiError 400."""
        messages = messages_of(self.messages, self.system)
        continues = messages[-1]["role"] == "assistant"
        chat = Chat(
            messages,
            self.tool_use,
            self.form,
            effort=self.output_config.effort,
            thinks=None if self.thinking is None else self.thinking.type != _DISABLED,
            add_generation_prompt=not continues,
            continue_final_message=continues,
        )
        return prompt_for(chat, tokenizer, settings)


class MessagesRequest(DeterministicBody, MessagesInput):
    max_tokens: Annotated[int, integer(1)] = Field(
        description="Most tokens to generate; where fewer fit, the answer may end with the model's context."
    )
    stream: bool = given(False, "Stream the answer as server-sent events.")
    stop_sequences: StopStrings = given((), "Stop strings, which end the answer.")
    temperature: float = sampled("temperature", "Randomness of sampling; 0: greedy.")
    top_p: float = top_p()
    top_k: TopK = 0

    def request(self, settings: FrontSettings) -> Request:
        values = {name: getattr(self, name) for name in _SAMPLED} | left_out(self, settings)
        most = min(self.max_tokens, settings.max_length)
        return Request(
            sampling_of(values, settings),
            max_tokens=most,
            open_ended=True,
            stop=self.stop_sequences,
            adapter=settings.adapter(self.model),
            deterministic=self.is_deterministic(settings),
        )


@also({}, labels=_OF_ANSWERS)
class CountRequest(MessagesInput):
    """The same, of which only the prompt counts."""


def _read(kind: type[B], body: dict[str, Any], reading: Reading) -> B:
    """Raises ApiError 400; 404 for an unknown model."""
    if body.get("thread") is not None:
        message = "thread is given, but conversations are not stored here; send all messages instead"
        raise ApiError(INVALID_STATUS, message, parameter="thread", code=NO_THREADS)
    return read_openai(kind, body, reading)


def parse_messages(body: dict[str, Any], identity: Identity, tokenizer: Vocabulary | None, reading: Reading) -> Job:
    """Raises ApiError 400; 404 for an unknown model."""
    asked, settings = _read(MessagesRequest, body, reading), reading.settings
    prompt = asked.prompt(tokenizer, settings)
    shown = Asked(settings.shown_model(asked.model), asked.max_tokens, asked.stop_sequences, asked.thinks)
    part = prompt.part(asked.request(settings))
    return Job((part,), asked.stream, MessagesWriter(identity, shown), prompt.form, reader=prompt.reader)


def parse_count(body: dict[str, Any], tokenizer: Vocabulary | None, reading: Reading) -> Prompted:
    """Raises ApiError 400; 404 for an unknown model."""
    return _read(CountRequest, body, reading).prompt(tokenizer, reading.settings)
