"""The messages and tools of a chat, in the form of OpenAI's /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar

from pydantic import (
    ConfigDict,
    FailFast,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from model.tokenizer import Message
from pipeline.front.api.body import Body, Problem, shown
from pipeline.front.api.chat.messages import assistant, result
from pipeline.front.api.chat.prompt import Chat
from pipeline.front.api.chat.tools import ToolUse, problems
from pipeline.front.api.fields import also, given, only, refuse, wrong
from pipeline.front.api.openai.tools import USUAL, ChatToolChoice, ChatTools, MessageCall, tool_use
from pipeline.front.api.schema import MADE, WORDS, Schema
from pipeline.front.delivery.job import Form
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import TOO_LONG, too_long


class TextPart(Body):
    """Other members, such as hints for caches, are ignored."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[Any, only("text")]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, part: Any) -> Any:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            inside, value = ("", part) if kind is None else (".type", kind)
            wrong(f"is {shown(value)}, expected a part of type 'text'; the model reads text only", inside)
        return part


_PARTS = Annotated[list[TextPart], FailFast(), Field(min_length=1)]


class _Content:
    """A string, or parts, which are joined by newlines as in vLLM."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._join, handler.generate_schema(_PARTS))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return {"anyOf": [{"type": "string"}, handler(core)], WORDS: _CONTENT_IS}

    def _join(self, value: Any, read: Callable[[Any], list[TextPart]]) -> str:
        if isinstance(value, str):
            return value
        plain = _plain_texts(value) if isinstance(value, list) else None
        return "\n".join([part.text for part in read(value)] if plain is None else plain)


def _plain_texts(parts: list[Any]) -> list[str] | None:
    """Of the usual parts, which may be thousands: they need no model. None: others are among them, or there are
    none."""
    texts = [one.get("text") if type(one) is dict and one.get("type") == "text" else None for one in parts]
    found = [text for text in texts if type(text) is str]
    return found if found and len(found) == len(parts) else None


_CONTENT_IS = "a string or a list of text parts"
_NEEDED: Schema = {"required": ["content"], "properties": {"content": {"not": {"enum": [None, []]}}}}


@also({"function_call audio": ()}, labels="refusal annotations")
class ChatMessage(Body):
    """Members that a client copies from an earlier answer may be null or empty."""

    model_config = ConfigDict(
        json_schema_extra={"if": {"properties": {"role": {"const": "assistant"}}}, "else": _NEEDED}
    )
    ABSENT: ClassVar[tuple[Any, ...]] = (None, [])
    PLACE = "messages[]."

    role: str = Field(min_length=1, description="A role of the model's chat template, such as user.")
    content: Annotated[str, _Content()] | None = given(
        None, "Text; parts are joined by newlines. It may be missing in an assistant's message."
    )
    name: str | None = given(None, "The author; most templates ignore it.")
    reasoning_content: str | None = given(None, "What an assistant wrote before its answer, for the template.")
    reasoning: str | None = given(None, "Another name of reasoning_content.")
    tool_calls: Annotated[list[MessageCall], FailFast()] = given([], "What an assistant has called.")
    tool_call_id: str | None = given(None, "Of a tool's message: the id of the call whose result it is.")

    def problems(self, place: str) -> Iterator[Problem]:
        """`place`: of the message."""
        if self.tool_calls and self.role != "assistant":
            yield f"{place}.tool_calls", f"{place}.tool_calls is given, but only an assistant calls tools"

    def for_template(self) -> Message:
        text = self.content or ""
        if self.role == "tool":
            return result(self.tool_call_id or "", text, self.name)
        if self.role == "assistant":
            calls = [one.for_template() for one in self.tool_calls]
            thoughts = self.reasoning_content or self.reasoning or ""
            return assistant(text, calls, reasoning=thoughts, name=self.name)
        message = {"role": self.role, "content": text}
        return message if self.name is None else message | {"name": self.name}


class NoMoreThanTokens:
    """There can't be more messages than a prompt may have tokens."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        words = "a list of at least one message, an object with a role and a content"
        return {**handler(core), WORDS: words, MADE: lambda settings: {"maxItems": settings.max_prompt}}

    def _check(self, value: Any, info: ValidationInfo) -> Any:
        reading: Any = info.context
        settings = reading.settings
        if isinstance(value, list) and len(value) > settings.max_prompt:
            told = f"there are {len(value)} messages, and a prompt has at most {settings.max_prompt} tokens"
            refuse(too_long(settings.max_length, told), TOO_LONG)
        return value


_MESSAGES = Annotated[list[ChatMessage], FailFast(), Field(min_length=1), NoMoreThanTokens()]


class Conversation(Body):
    """What a prompt is rendered from."""

    messages: _MESSAGES = Field(description="The conversation.")
    add_generation_prompt: bool | None = given(
        None, "Begin an assistant's message behind the last one.", json_schema_extra={"default": True}
    )
    continue_final_message: bool = given(False, "Continue the last message; without add_generation_prompt.")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="More variables for the model's chat template."
    )
    reasoning_effort: str | None = given(None, "Given to the model's chat template, if this asks for it.")
    tools: ChatTools = given([], "Tools that the model may call.")
    tool_choice: ChatToolChoice | None = None
    parallel_tool_calls: bool = given(True, "There may be several calls in one answer.")

    @property
    def tool_use(self) -> ToolUse:
        tools = [tool.tool() for tool in self.tools]
        return tool_use(tools, self.tool_choice or USUAL, parallel=self.parallel_tool_calls)

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        for index, message in enumerate(self.messages):
            if message.content is None and message.role != "assistant":
                place = f"messages[{index}].content"
                yield place, f"{place} is missing: expected {_CONTENT_IS}"
            yield from message.problems(f"messages[{index}]")
        yield from problems(self.tool_use)
        if self.add_generation_prompt and self.continue_final_message:
            both = "add_generation_prompt and continue_final_message can't both be true; set one of them to false"
            yield "continue_final_message", both

    def chat(self, form: Form | None = None) -> Chat:
        """`form`: of the answer's text."""
        generation = self.add_generation_prompt
        return Chat(
            [message.for_template() for message in self.messages],
            self.tool_use,
            form,
            variables=self.chat_template_kwargs,
            effort=self.reasoning_effort,
            add_generation_prompt=not self.continue_final_message if generation is None else generation,
            continue_final_message=self.continue_final_message,
        )
