"""A chat, by whichever API it came: its prompt, and what its answer may consist of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from model.errors import TokenizerError
from model.grammar import AnswerShape
from model.response import Opened, ResponseFormat, ResponseReader, initial_state
from model.tokenizer import ChatTemplateError, Message, Vocabulary
from pipeline.front.api.body import shown
from pipeline.front.api.chat.messages import with_ids, with_names
from pipeline.front.api.chat.tools import NO_TOOLS, ToolUse
from pipeline.front.api.fields import why_too_long
from pipeline.front.delivery.job import Form, Part, ScoreReader
from pipeline.front.delivery.reading import AnswerReader
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import TOO_LONG, Request


@dataclass(frozen=True, slots=True)
class Chat:
    """`form`: of the answer's text, if it must have one. `effort`, `thinks`: told to a template that asks for them;
    None: its own choice. `parameter`: where the client has the messages, for errors."""

    messages: Sequence[Message]
    use: ToolUse = NO_TOOLS
    form: Form | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    effort: str | None = None
    thinks: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    parameter: str = "messages"


@dataclass(frozen=True, slots=True)
class Prompted:
    """A chat's prompt. `plain`: where its text spells special tokens that are none. `form`: of the whole answer, not
    only of its text. `reader`: makes, for a choice, what tells reasoning and calls from its text; None: it is all
    text."""

    text: str
    plain: tuple[int, ...] = ()
    form: Form | None = None
    reader: Callable[[int], AnswerReader] | None = None
    shown: tuple[int, ...] = ()

    def needs_bos(self, tokenizer: Vocabulary | None, *, wanted: bool) -> bool:
        """A template's BOS is enough."""
        bos = None if tokenizer is None or tokenizer.bos_id is None else tokenizer.token_text(tokenizer.bos_id)
        return wanted and not (bos and self.text.startswith(bos))

    def part(
        self, params: Request, *, add_special: bool = False, choices: int = 1, scores: tuple[ScoreReader, ...] = ()
    ) -> Part:
        if self.shown:
            params = msgspec.structs.replace(params, shown_ids=self.shown)
        return Part(self.text, params, add_special, choices, self.plain, scores)


def prompt_for(
    chat: Chat, tokenizer: Vocabulary | None, settings: FrontSettings, *, every_token: bool = False
) -> Prompted:
    """Rendered by the model's chat template. `every_token`: log-probabilities are wanted, so no token may be without
    an event. Raises ApiError 400 for what the template refuses, and for tools that the model can't be given. Takes
    microseconds per message and tool."""
    if tokenizer is None or not tokenizer.has_chat_template:
        advice = "use /v1/completions, or set pipeline.chat_template in the server's configuration"
        raise ApiError(400, f"the model has no chat template; {advice}", parameter=chat.parameter)
    for name in chat.variables.keys() & tokenizer.template_variables:
        message = f"chat_template_kwargs has {shown(name)}, which the server sets itself"
        raise ApiError(400, message, parameter="chat_template_kwargs")
    form = settings.response_format
    if chat.use.offered:
        _require_tools(chat.use, tokenizer, settings)
    _require_continuable(chat)
    try:
        said = sum(_length(message) for message in chat.messages)
    except RecursionError:
        told = "the arguments of a call have too many levels"
        raise ApiError(400, told, parameter=chat.parameter) from None
    _require_short(chat, why_too_long(said, settings, "messages have"))  # before time is spent on them
    text, plain = _render(chat, tokenizer, settings)
    _require_short(chat, why_too_long(len(text), settings))
    if form is None:
        return Prompted(text, plain, chat.form)
    opened = initial_state(form, text)
    reader = _reader(chat, form, opened, every_token)
    shown_ids = tuple(sorted(form.shown_ids)) if reader is not None else ()
    return Prompted(text, plain, _form(chat, form, opened), reader, shown_ids)


def _require_tools(use: ToolUse, tokenizer: Vocabulary, settings: FrontSettings) -> None:
    """Raise ApiError 400 where calls could not be read, or could never come."""
    if not settings.calls_tools:
        advice = "set pipeline.tool_format in the server's configuration to the form in which it calls tools"
        message = f"tools is given, but the model's chat template has no known form of calls; {advice}"
        raise ApiError(400, message, parameter="tools")
    if not use.guaranteed and not tokenizer.template_asks_for("tools"):
        told = "the model's chat template does not show tools to the model, so that it could not choose one"
        advice = "demand a call by tool_choice, or set pipeline.chat_template in the server's configuration"
        raise ApiError(400, f"tools is given, but {told}; {advice}", parameter="tools")


def _require_continuable(chat: Chat) -> None:
    if chat.continue_final_message and chat.messages[-1].get("tool_calls"):
        told = "the last message calls tools, so that it can't be continued; expected their results behind it"
        raise ApiError(400, told, parameter=chat.parameter)


def _length(message: Message) -> int:
    """Of what the message says, in characters."""
    calls = sum(len(str(one["function"]["arguments"])) for one in message.get("tool_calls", ()))
    return len(message["content"]) + calls


def _require_short(chat: Chat, problem: str) -> None:
    if problem:
        raise ApiError(400, problem, parameter=chat.parameter, code=TOO_LONG)


def _variables(chat: Chat, tokenizer: Vocabulary) -> Mapping[str, Any]:
    told = {"reasoning_effort": chat.effort, "enable_thinking": chat.thinks}
    known = {name: one for name, one in told.items() if one is not None and tokenizer.template_asks_for(name)}
    return {**known, **chat.variables}


def _render(chat: Chat, tokenizer: Vocabulary, settings: FrontSettings) -> tuple[str, tuple[int, ...]]:
    """The prompt, special tokens included, and where its text spells special tokens that are none."""
    form, messages = settings.response_format, with_names(chat.messages)
    if form is not None and form.id_length:
        messages = with_ids(messages, form.id_length)
    options: dict[str, Any] = {
        "add_generation_prompt": chat.add_generation_prompt,
        "continue_final_message": chat.continue_final_message,
        "variables": _variables(chat, tokenizer),
        "tools": [tool.for_template() for tool in chat.use.offered] or None,
    }
    try:
        if settings.user_control_tokens == "text":
            return tokenizer.render_chat(messages, **options)
        return tokenizer.apply_chat_template(messages, **options), ()
    except ChatTemplateError as error:
        raise ApiError(400, str(error), parameter=chat.parameter) from None
    except TokenizerError as error:  # the operator's fault
        raise ApiError(500, "the server's chat template failed to render", kind="server_error") from error


# ---- the answer --------------------------------------------------------------------------------------------------


def _form(chat: Chat, form: ResponseFormat, opened: Opened) -> Form | None:
    """What the whole answer must look like; None: anything."""
    use, body = chat.use, chat.form
    tools = use.callable if use.bound or body is not None else ()
    only_text = opened is Opened.TEXT or not (form.reasoning or form.text_opens)
    if not tools and (body is None or only_text):
        return body
    shape = AnswerShape(
        format=form,
        opened=opened,
        tools=tuple(tool.shape(guaranteed=use.guaranteed) for tool in tools),
        least=int(use.guaranteed),
        most=1 if use.name or not use.parallel else None,
        text=bool(tools) and not use.guaranteed and body is None,
        body=None if use.guaranteed or body is None else (body.kind, body.value),
    )
    return Form("tools" if use.bound or body is None else body.parameter, "answer", shape)


def _reader(
    chat: Chat, form: ResponseFormat, opened: Opened, every_token: bool
) -> Callable[[int], AnswerReader] | None:
    tools = {tool.name: tool.schema for tool in chat.use.offered}
    if not (tools or form.reasoning or form.text_opens):
        return None

    def make(choice: int) -> AnswerReader:
        pieces = ResponseReader(form, tools=tools, opened=opened)
        return AnswerReader(choice, pieces, every_token=every_token)

    return make
