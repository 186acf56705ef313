"""Formats of model families whose checkpoints say nothing of them, and the choice among these and what one says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from model.errors import TokenizerError
from model.response.format import Calls, Mark, Reasoning, ResponseFormat, Syntax
from model.response.template import read_template

T = TypeVar("T", Calls, Reasoning)

_ANCHORS = (
    "<|im_start|>assistant\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|header_start|>assistant<|header_end|>\n\n",
    "<｜Assistant｜>",  # noqa: RUF001 - DeepSeek's signs
    "[/INST]",
    "[/TOOL_RESULTS]",
)

THINK = Reasoning(opens=(Mark("<think>"),), closes=(Mark("</think>"),))
_MISTRAL_THINK = Reasoning(opens=(Mark("[THINK]"),), closes=(Mark("[/THINK]"),))
_TOOL_CALL = ((Mark("<tool_call>"),), (Mark("</tool_call>"),))
_PYTHON_TAGS = ((Mark("<|python_tag|>"), Mark("<|python_start|>")), (Mark("<|python_end|>"),))
_TOOL_CALLS = (Mark("[TOOL_CALLS]"),)

TOOLS: Mapping[str, tuple[Calls, ...]] = {
    "hermes": (Calls(*_TOOL_CALL, Syntax.JSON),),
    "qwen3_coder": (
        Calls(
            *_TOOL_CALL,
            Syntax.XML,
            name_begin="\n<function=",
            name_end=">\n",
            parameter=("<parameter=", ">\n", "\n</parameter>\n"),
            arguments_end="</function>\n",
        ),
    ),
    "mistral": (
        Calls(_TOOL_CALLS, (), Syntax.JSON_LIST),
        Calls(_TOOL_CALLS, (), Syntax.JSON_ARGUMENTS, name_end="[ARGS]", name_skips=True),
    ),
    "llama_pythonic": (Calls(*_PYTHON_TAGS, Syntax.PYTHONIC, bare=True),),
    "llama3_json": (Calls(*_PYTHON_TAGS, Syntax.JSON, arguments_key="parameters", bare=True, between="; "),),
}
REASONING: Mapping[str, Reasoning] = {"think": THINK, "mistral_think": _MISTRAL_THINK}
_ID_LENGTHS = {"mistral": 9}

# What a chat template's source has of the marks; the first that fits is taken.
_TOOL_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("qwen3_coder", ("<tool_call>", "<function=")),
    ("hermes", ("<tool_call>", '"arguments')),
    ("mistral", ("[TOOL_CALLS]",)),
    ("llama_pythonic", ("func_name1(",)),
    ("llama3_json", ('"parameters":', "<|start_header_id|>")),
    ("llama3_json", ('"parameters":', "<|header_start|>")),
    ("llama3_json", ("<|python_tag|>",)),
)
_REASONING_SIGNS = (("think", ("</think>",)), ("mistral_think", ("[/THINK]",)))


class FormatSource(Protocol):
    """The part of a tokenizer that is needed here."""

    @property
    def chat_templates(self) -> str: ...
    @property
    def response_template(self) -> Mapping[str, Any] | None: ...
    @property
    def special_ids(self) -> frozenset[int]: ...
    def added_token_id(self, text: str) -> int | None: ...
    def token_text(self, token_id: int) -> str: ...


def choose_format(
    tokenizer: FormatSource, tool_format: str, reasoning_format: str, *, response_template: bool = True
) -> ResponseFormat | None:
    """`auto`: what the checkpoint says, else what its chat template shows; `none`; a preset. None: answers are text.
    Without ``response_template`` the checkpoint's own is not looked at.

    Raises TokenizerError for an unknown name, and for a response template that is wrong or can't be executed.
    """
    _check_name("tool", tool_format, TOOLS)
    _check_name("reasoning", reasoning_format, REASONING)
    own = None
    if response_template and tokenizer.response_template is not None and "auto" in (tool_format, reasoning_format):
        own = read_template(tokenizer.response_template)
    source = tokenizer.chat_templates
    chosen = own or ResponseFormat("", anchors=_anchors(source))
    names = [chosen.name]
    if own is None or tool_format != "auto":
        names.append(tools := _chosen(tool_format, _TOOL_SIGNS, source))
        chosen = replace(chosen, calls=TOOLS.get(tools, ()), id_length=_ID_LENGTHS.get(tools, 0))
    if own is None or reasoning_format != "auto":
        names.append(thought := _chosen(reasoning_format, _REASONING_SIGNS, source))
        chosen = replace(chosen, reasoning=REASONING.get(thought))
    chosen = replace(chosen, name="+".join(filter(None, names)))
    return with_ids(chosen, tokenizer) if chosen.calls or chosen.reasoning or chosen.text_opens else None


def _check_name(kind: str, name: str, known: Mapping[str, object]) -> None:
    if name not in ("auto", "none", *known):
        raise TokenizerError(f"the {kind} format {name!r} is unknown; there are auto, none, {', '.join(known)}")


def _chosen(name: str, signs: tuple[tuple[str, tuple[str, ...]], ...], source: str) -> str:
    """A preset, or nothing."""
    if name == "auto":
        return next((preset for preset, texts in signs if all(text in source for text in texts)), "")
    return "" if name == "none" else name


def _anchors(source: str) -> tuple[str, ...]:
    """Those that the chat template itself writes: in another family's prompts they could only be a user's text."""
    return tuple(anchor for anchor in _ANCHORS if anchor.rstrip() in source)


def with_ids(chosen: ResponseFormat, tokenizer: FormatSource) -> ResponseFormat:
    """Marks that are one added token each become that token."""

    def known(mark: Mark) -> Mark:
        return Mark(mark.text, tokenizer.added_token_id(mark.text))

    resolved = replace(
        chosen,
        reasoning=_mapped(chosen.reasoning, known) if chosen.reasoning else None,
        calls=tuple(_mapped(form, known) for form in chosen.calls),
        ends=tuple(map(known, chosen.ends)),
        text_opens=tuple(map(known, chosen.text_opens)),
    )
    literals = list(_literals(resolved))
    texts = ((token_id, tokenizer.token_text(token_id)) for token_id in tokenizer.special_ids)
    inner = {token_id for token_id, text in texts if text and any(text in one for one in literals)}
    return replace(resolved, inner_ids=tuple(sorted(inner)))


def _mapped(part: T, known: Callable[[Mark], Mark]) -> T:
    return replace(part, opens=tuple(map(known, part.opens)), closes=tuple(map(known, part.closes)))


def _literals(chosen: ResponseFormat) -> Iterator[str]:
    yield from (mark.text for mark in (*chosen.ends, *chosen.text_opens))
    parts: list[Calls | Reasoning] = [*chosen.calls, *([chosen.reasoning] if chosen.reasoning else [])]
    for part in parts:
        yield from (mark.text for mark in (*part.opens, *part.closes))
    for form in chosen.calls:
        yield from (form.name_begin, form.name_end, form.arguments_end, *form.parameter)
