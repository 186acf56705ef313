"""Chat templates: Jinja texts that come with a tokenizer, rendered in a sandbox as transformers does it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from model.errors import TokenizerError

Message = Mapping[str, Any]
"""``role`` and ``content``, both strings; a template may know further keys."""

_CUT = "\ue000\ue001end of the last message\ue001\ue000"  # private signs, which no message should have
_PROBE = "the text of a user"
_SHOWN = 200  # characters of what a template says
OWN_VARIABLES = frozenset({"messages", "add_generation_prompt", "tools", "documents"})


class ChatTemplateError(TokenizerError):
    """The messages do not fit the chat template, their client's fault; an unusable one is a plain TokenizerError."""


class ChatTemplate:
    """A compiled template. It comes from the operator's files; the messages come from clients."""

    def __init__(
        self, source: str, special_tokens: Mapping[str, str], origin: str, tool_use: ChatTemplate | None = None
    ) -> None:
        """``special_tokens`` are what templates use by name (``bos_token`` …); ``origin`` names the file.
        ``tool_use`` is rendered in place of this one where there are tools."""
        self._special_tokens = dict(special_tokens)
        self.origin, self.source, self.tool_use = origin, source, tool_use
        self._wants_parts = False
        self._knows_developer = "developer" in source
        # processes that render nothing do without Jinja
        from model.tokenizer.jinja import TemplateError, TemplateSyntaxError, compiled

        self._refuses = TemplateError
        try:
            self._template, asked_for = compiled(source)
            self.asked_for: frozenset[str] = asked_for | (tool_use.asked_for if tool_use else frozenset())
        except TemplateSyntaxError as error:
            raise TokenizerError(
                f"the chat template in {origin} is not valid Jinja, line {error.lineno}: {error.message}"
            ) from error

    def name_tokens(self, tokens: Mapping[str, str]) -> None:
        """Special tokens that no file names, though the tokenizer has them."""
        self._special_tokens = {**tokens, **self._special_tokens}
        if self.tool_use is not None:
            self.tool_use.name_tokens(tokens)

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """By the names that templates use."""
        return self._special_tokens

    @property
    def sources(self) -> str:
        """The text of all templates."""
        return self.source if self.tool_use is None else self.source + self.tool_use.source

    def find_form(self) -> None:
        """Whether the template takes contents as strings or as lists of parts: one loops over the other and shows
        nothing. Raises TokenizerError if it shows a user's text in neither form."""
        shown = [form for form in (False, True) if self._shows_text(parts=form) is not False]
        if not shown:
            raise TokenizerError(
                f"the chat template in {self.origin} loses what users say: it shows a message's text neither as a "
                "string nor as a list of parts; expected one that writes message.content of the role user"
            )
        self._wants_parts = shown[0]
        if self.tool_use is not None:
            self.tool_use.find_form()

    def _shows_text(self, *, parts: bool) -> bool | None:
        """None: it refuses short conversations, and nothing is known."""
        self._wants_parts = parts
        rendered = []
        for roles in (("user",), ("system", "user")):
            with contextlib.suppress(ChatTemplateError):
                messages = [{"role": role, "content": _PROBE} for role in roles]
                rendered.append(self.render(messages, add_generation_prompt=True))
        return any(_PROBE in text for text in rendered) if rendered else None

    def _in_its_form(self, message: Message) -> Message:
        """The role developer is OpenAI's newer name of system."""
        role, content = message["role"], message["content"]
        if role == "developer" and not self._knows_developer:
            role = "system"
        if self._wants_parts and isinstance(content, str):
            content = [{"type": "text", "text": content}]
        return {**message, "role": role, "content": content}

    @property
    def own_variables(self) -> frozenset[str]:
        """Names that `render` sets itself."""
        return OWN_VARIABLES | self._special_tokens.keys()

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The prompt. ``continue_final_message`` ends it with the last message's content, for the model to go on.
        ``tools`` are functions as OpenAI's API has them.

        ``variables`` are what a template may know besides; those in `own_variables` do not count.

        Raises ChatTemplateError for messages that the template refuses or cannot render.
        """
        if tools and self.tool_use is not None:
            return self.tool_use.render(
                messages,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                variables=variables,
                tools=tools,
            )
        for index, message in enumerate(messages):
            _check_message(message, index)
        if continue_final_message:
            last = messages[-1]
            messages = [*messages[:-1], {**last, "content": f"{last['content']}{_CUT} "}]
        if self._wants_parts or any(message["role"] == "developer" for message in messages):
            messages = [self._in_its_form(message) for message in messages]
        own = {"messages": messages, "add_generation_prompt": add_generation_prompt, "tools": tools}
        prompt = self._render({**(variables or {}), **own, "documents": None, **self._special_tokens})
        return _cut(prompt) if continue_final_message else prompt

    def _render(self, variables: Mapping[str, Any]) -> str:
        try:
            return self._template.render(variables)
        except self._refuses as error:
            raise ChatTemplateError(f"the chat template refuses the messages: {_shown(error.message)}") from error
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            raise ChatTemplateError(f"the chat template cannot render the messages: {_shown(error)}") from error


def _shown(told: object) -> str:
    """What a template says may hold any text of the client's: one line of it, that a log can have."""
    text = "".join(one if one.isprintable() else " " for one in str(told)[: 2 * _SHOWN])
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _check_message(message: Message, index: int) -> None:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ChatTemplateError(
            f"messages[{index}] must be an object with a string 'role', such as 'user', and a 'content'"
        )
    if "content" not in message:
        raise ChatTemplateError(f"messages[{index}] has no 'content'")


def _cut(prompt: str) -> str:
    """The prompt before the mark. Where the template strips blanks off contents, that one has none at its end.

    The outcome is that of transformers' `continue_final_message`.
    """
    end = prompt.rfind(_CUT)
    if end < 0:
        raise ChatTemplateError("the last message can't be continued: the chat template does not show its content")
    stripped = not prompt.startswith(_CUT + " ", end)
    return prompt[:end].rstrip() if stripped else prompt[:end]
