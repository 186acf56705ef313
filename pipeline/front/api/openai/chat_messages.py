"""The messages of a chat, and the prompt that the tokenizer's chat template renders from them."""

from __future__ import annotations

from typing import Any

from model.errors import TokenizerError
from model.tokenizer import ChatTemplateError, Message, Tokenizer
from pipeline.front.api.fields import Fields, shown
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings


def read_prompt(fields: Fields, tokenizer: Tokenizer | None, settings: FrontSettings) -> str:
    """The prompt, special tokens included. Raises ApiError 400 for messages that are invalid or that the template
    refuses.

    It is rendered in the event loop: that takes microseconds per message, and there can't be more messages than a
    prompt may have tokens.
    """
    messages = _messages(fields, settings.max_prompt)
    going_on = fields.boolean("continue_final_message", False)
    generation = fields.boolean("add_generation_prompt", not going_on)
    if going_on and generation:
        both = "add_generation_prompt and continue_final_message can't both be true; set one of them to false"
        raise fields.invalid("continue_final_message", both)
    variables = fields.mapping("chat_template_kwargs")
    if tokenizer is None or not tokenizer.has_chat_template:
        advice = "use /v1/completions, or set pipeline.chat_template in the server's configuration"
        raise fields.invalid("messages", f"the model has no chat template; {advice}")
    for name in variables.keys() & tokenizer.template_variables:
        fields.refuse("chat_template_kwargs", f"an object without {shown(name)}, which the server sets itself")
    try:
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=generation, continue_final_message=going_on, variables=variables
        )
    except ChatTemplateError as error:
        raise fields.invalid("messages", str(error)) from None
    except TokenizerError as error:  # the operator's fault
        raise ApiError(500, "the server's chat template failed to render", kind="server_error") from error
    return fields.limit_text("messages", prompt, settings.prompt_limit_chars, settings.max_prompt)


def _messages(fields: Fields, most: int) -> list[Message]:
    messages = fields.take("messages")
    if messages is None:
        raise fields.invalid("messages", "messages is missing: expected a list of objects with a role and a content")
    if not isinstance(messages, list) or not messages:
        fields.refuse("messages", "a list of at least one message")
    if len(messages) > most:
        raise fields.invalid(
            "messages", f"there are {len(messages)} messages, but a prompt has at most {most} tokens"
        )
    return [_message(message, f"messages[{index}]", fields) for index, message in enumerate(messages)]


def _message(message: Any, place: str, fields: Fields) -> Message:
    """Roles are checked by the template. Fields that a client copies from an earlier answer may be null or empty."""
    if not isinstance(message, dict):
        raise fields.invalid(place, f"{place} is {shown(message)}, expected an object with a role and a content")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise fields.invalid(f"{place}.role", f"{place}.role is {shown(role)}, expected a string such as 'user'")
    known: dict[str, Any] = {"role": role, "content": _content(message.get("content"), f"{place}.content", fields)}
    for name, value in message.items():
        if name == "name" and isinstance(value, str):
            known[name] = value
        elif name not in ("role", "content") and value not in (None, []):
            what = "tools are" if name in ("tool_calls", "function_call", "tool_call_id") else f"{shown(name)} is"
            raise fields.invalid(f"{place}.{name[:40]}", f"{place}: {what} not supported")
    return known


def _content(content: Any, place: str, fields: Fields) -> str:
    """A string, or parts of type text, which are joined by newlines as in vLLM."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise fields.invalid(place, f"{place} is {shown(content)}, expected a string or a list of text parts")
    return "\n".join(_part(part, f"{place}[{index}]", fields) for index, part in enumerate(content))


def _part(part: Any, place: str, fields: Fields) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        message = f"{place} is {shown(part if kind is None else kind)}, expected a part of type 'text'"
        raise fields.invalid(place if kind is None else f"{place}.type", f"{message}; the model reads text only")
    text = part.get("text")
    if not isinstance(text, str):
        raise fields.invalid(f"{place}.text", f"{place}.text is {shown(text)}, expected a string")
    return text
