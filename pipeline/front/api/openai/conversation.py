"""The messages of a chat, and the prompt that the tokenizer's chat template renders from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

from model.errors import TokenizerError
from model.tokenizer import ChatTemplateError, Message, Tokenizer
from pipeline.front.api.body import Body, Problem, shown
from pipeline.front.api.fields import also, given, only, refuse, why_too_long, wrong
from pipeline.front.api.schema import MADE, WORDS, Schema
from pipeline.front.http.errors import ApiError
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


@also({"tool_calls tool_call_id function_call audio": ()}, labels="refusal annotations")
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

    def for_template(self) -> Message:
        message = {"role": self.role, "content": self.content or ""}
        if self.name is not None:
            message["name"] = self.name
        if thoughts := self.reasoning_content or self.reasoning:
            message["reasoning_content"] = thoughts
        return message


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


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt, and where its text spells special tokens that are none."""

    text: str
    plain: tuple[int, ...] = ()

    def needs_bos(self, tokenizer: Tokenizer | None, *, wanted: bool) -> bool:
        """A template's BOS is enough."""
        bos = None if tokenizer is None or tokenizer.bos_id is None else tokenizer.token_text(tokenizer.bos_id)
        return wanted and not (bos and self.text.startswith(bos))


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

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        for index, message in enumerate(self.messages):
            if message.content is None and message.role != "assistant":
                place = f"messages[{index}].content"
                yield place, f"{place} is missing: expected {_CONTENT_IS}"
        if self.add_generation_prompt and self.continue_final_message:
            both = "add_generation_prompt and continue_final_message can't both be true; set one of them to false"
            yield "continue_final_message", both

    def render(self, tokenizer: Tokenizer | None, settings: FrontSettings) -> Rendered:
        """The prompt, special tokens included. Raises ApiError 400 for what the template refuses.

        It is rendered in the event loop: that takes microseconds per message, of which there are not very many.
        """
        if tokenizer is None or not tokenizer.has_chat_template:
            advice = "use /v1/completions, or set pipeline.chat_template in the server's configuration"
            raise ApiError(400, f"the model has no chat template; {advice}", parameter="messages")
        for name in self.chat_template_kwargs.keys() & tokenizer.template_variables:
            message = f"chat_template_kwargs has {shown(name)}, which the server sets itself"
            raise ApiError(400, message, parameter="chat_template_kwargs")
        said = sum(len(message.content or "") for message in self.messages)
        self._require_short(why_too_long(said, settings, "messages have"))  # before time is spent on them
        prompt = self._render(tokenizer, plain=settings.user_control_tokens == "text")
        self._require_short(why_too_long(len(prompt.text), settings))
        return prompt

    @staticmethod
    def _require_short(problem: str) -> None:
        if problem:
            raise ApiError(400, problem, parameter="messages", code=TOO_LONG)

    def _variables(self, tokenizer: Tokenizer) -> dict[str, Any]:
        effort = self.reasoning_effort
        asked = effort is not None and tokenizer.template_asks_for("reasoning_effort")
        return {"reasoning_effort": effort, **self.chat_template_kwargs} if asked else self.chat_template_kwargs

    def _render(self, tokenizer: Tokenizer, *, plain: bool) -> Rendered:
        generation, messages = self.add_generation_prompt, [message.for_template() for message in self.messages]
        options: dict[str, Any] = {
            "add_generation_prompt": not self.continue_final_message if generation is None else generation,
            "continue_final_message": self.continue_final_message,
            "variables": self._variables(tokenizer),
        }
        try:
            if plain:
                return Rendered(*tokenizer.render_chat(messages, **options))
            return Rendered(tokenizer.apply_chat_template(messages, **options))
        except ChatTemplateError as error:
            raise ApiError(400, str(error), parameter="messages") from None
        except TokenizerError as error:  # the operator's fault
            raise ApiError(500, "the server's chat template failed to render", kind="server_error") from error
