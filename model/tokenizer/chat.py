"""Chat templates: Jinja texts that come with a tokenizer, rendered in a sandbox as transformers does it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from model.errors import TokenizerError
from model.tokenizer.errors import ChatTemplateError

Message = Mapping[str, Any]
"""``role`` and ``content``, both strings; a template may know further keys."""


class GenerationBlock(Extension):
    """``{% generation %}`` marks the assistant's text for training; in a prompt it is just its content."""

    tags = {"generation"}  # noqa: RUF012 - the name and kind that Jinja asks for

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Macro | Callable[[], str]) -> str:
        return caller()


class ChatTemplate:
    """A compiled template. It comes from the operator's files; the messages come from clients."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], origin: str) -> None:
        """``special_tokens`` are what templates use by name (``bos_token`` …); ``origin`` names the file."""
        self._special_tokens = dict(special_tokens)
        self._origin = origin
        try:
            self._template = _make_environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TokenizerError(
                f"the chat template in {origin} is not valid Jinja, line {error.lineno}: {error.message}"
            ) from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """Raises ChatTemplateError for messages that the template refuses or cannot render."""
        for index, message in enumerate(messages):
            _check_message(message, index)
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._special_tokens,
            )
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the chat template refuses the messages: {error.message}") from error
        except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise ChatTemplateError(f"the chat template cannot render the messages: {error}") from error


def _check_message(message: Message, index: int) -> None:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ChatTemplateError(
            f"messages[{index}] must be an object with a string 'role', such as 'user', and a 'content'"
        )
    if "content" not in message:
        raise ChatTemplateError(f"messages[{index}] has no 'content'")


def _make_environment() -> ImmutableSandboxedEnvironment:
    """The environment of transformers' `apply_chat_template`; templates are written for exactly this one."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own filter it does not escape HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    """Local time, as templates that tell the model today's date expect it."""
    return datetime.datetime.now().astimezone().strftime(form)
