"""What every tokenizer can do, whichever file it came from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import TokenizerError
from model.tokenizer.chat import ChatTemplate, Message
from model.tokenizer.incremental import NOTHING, DecodingRules, IncrementalDetokenizer, Piece
from model.tokenizer.plain_text import Spans, SpecialTexts, unmark, without_marks

WRITTEN_BY_OTHERS = frozenset({"user", "tool"})
"""Roles whose messages neither the operator nor the model has written."""


class InvalidTextError(TokenizerError):
    """The text is not valid Unicode: its client's fault."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Which ids have a meaning instead of a text."""

    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    eos_ids: frozenset[int]  # every id that ends an answer; includes eos_id
    all_ids: frozenset[int]  # every id that `skip_special` hides


class Tokenizer(ABC):
    """Immutable after loading; one instance may serve any number of requests."""

    name: str  # the file it was loaded from, for messages to the operator
    vocab_size: int  # the highest id + 1
    special: SpecialTokens
    rules: DecodingRules  # how the bytes of successive tokens become text

    def __init__(
        self,
        chat_template: ChatTemplate | None,
        class_name: str | None = None,
        response_template: Mapping[str, Any] | None = None,
    ) -> None:
        self.class_name = class_name  # in transformers, where a file says it
        self.response_template = response_template  # of tokenizer_config.json
        self._chat_template = chat_template
        # Asking a library about a token costs some microseconds; every token of every stream is asked about.
        self._known_pieces = lru_cache(maxsize=None)(self._piece)

    @property
    def bos_id(self) -> int | None:
        return self.special.bos_id

    @property
    def eos_id(self) -> int | None:
        return self.special.eos_id

    @property
    def eos_ids(self) -> frozenset[int]:
        return self.special.eos_ids

    @property
    def special_ids(self) -> frozenset[int]:
        return self.special.all_ids

    @property
    def chat_template(self) -> str | None:
        """Its Jinja text."""
        return self._chat_template.source if self._chat_template else None

    @property
    def chat_templates(self) -> str:
        """The Jinja text of all there are: one may be for chats with tools."""
        return self._chat_template.sources if self._chat_template else ""

    @property
    def has_chat_template(self) -> bool:
        return self._chat_template is not None

    def encode(self, text: str, *, add_special: bool = True, plain: Spans = ()) -> list[int]:
        """Token ids of a text. Special tokens written in the text become their ids, except in ``plain``.

        ``add_special`` adds BOS and EOS as the tokenizer's files say.

        Raises InvalidTextError for a text that has no UTF-8 form.
        """
        _require_utf8(text)
        return self._encode_with_plain(text, add_special, plain) if plain else self._encode(text, add_special)

    def encode_up_to(
        self, text: str, most: int, *, add_special: bool = True, plain: Spans = ()
    ) -> tuple[int, NDArray[np.int32]]:
        """How many ids `encode` gives, and the ids themselves; none of them if there are more than `most`.

        For threads: it releases the GIL, except for about 5 ms per 100,000 ids at the end.

        Raises InvalidTextError for a text that has no UTF-8 form.
        """
        if plain:
            return _counted(self.encode(text, add_special=add_special, plain=plain), most)
        _require_utf8(text)
        return self._encode_up_to(text, most, add_special)

    def _encode_up_to(self, text: str, most: int, add_special: bool) -> tuple[int, NDArray[np.int32]]:
        return _counted(self._encode(text, add_special), most)

    @abstractmethod
    def _encode(self, text: str, add_special: bool) -> list[int]:
        """`encode` of a text that is known to be valid."""

    @abstractmethod
    def _encode_with_plain(self, text: str, add_special: bool, plain: Spans) -> list[int]:
        """`_encode`, where the text in ``plain`` spells no special token."""

    def piece(self, token_id: int, *, at_start: bool, skip_special: bool) -> Piece:
        """The bytes that a token adds to a text; none for an id that does not exist.

        ``at_start`` says that nothing stands before it, where some tokenizers drop a leading space.
        """
        if not 0 <= token_id < self.vocab_size:
            return NOTHING
        return self._known_pieces(token_id, at_start, skip_special)

    @abstractmethod
    def _piece(self, token_id: int, at_start: bool, skip_special: bool) -> Piece:
        """`piece` of an id below the vocabulary's size, which may still have no token."""

    @abstractmethod
    def added_token_id(self, text: str) -> int | None:
        """Of the added token that this text is as a whole, special or not."""

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of the ids. Ids that do not exist add nothing; bytes that are not UTF-8 become U+FFFD."""
        detokenizer = IncrementalDetokenizer(self, skip_special=skip_special)
        return "".join(map(detokenizer.push, ids)) + detokenizer.finish()

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token adds in the middle of a text; special tokens are shown."""
        return self.piece(token_id, at_start=False, skip_special=False).data

    def every_token_bytes(self, size: int) -> list[bytes]:
        """`token_bytes` of all ids below ``size``; they are not remembered, which takes more memory than a list."""
        known = min(size, self.vocab_size)
        return [self._piece(at, False, False).data for at in range(known)] + [b""] * (size - known)

    def token_text(self, token_id: int) -> str:
        """`token_bytes` as text; a token that holds a part of a character only has U+FFFD there."""
        return self.token_bytes(token_id).decode(errors="replace")

    def name_template_tokens(self) -> None:
        """Called once, by the loader: a chat template may write BOS and EOS though no file says their names.

        Raises TokenizerError for a template that does not show what users say.
        """
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_id}
        if self._chat_template is not None:
            self._chat_template.name_tokens(
                {name: self.token_text(token_id) for name, token_id in ids.items() if token_id is not None}
            )
            self._chat_template.find_form()

    def render_chat(self, messages: Sequence[Message], **options: Any) -> tuple[str, Spans]:
        """As `apply_chat_template`, with the places where a user's or a tool's text spells special tokens: to be
        encoded as text.

        Other roles are not looked at: templates take an assistant's marks (such as ``</think>``) apart, and what the
        system says is the operator's own. Raises as `apply_chat_template`.
        """
        messages = [_without_marks(message) for message in messages]
        marked = [
            self._marked(message) if message.get("role") in WRITTEN_BY_OTHERS else message for message in messages
        ]
        return unmark(self.apply_chat_template(marked, **options))

    def _marked(self, message: Message) -> Message:
        content = message.get("content")
        return {**message, "content": self._special_texts.mark(content)} if isinstance(content, str) else message

    @cached_property
    def _special_texts(self) -> SpecialTexts:
        return SpecialTexts(map(self.token_text, self.special_ids))

    @property
    def template_variables(self) -> frozenset[str]:
        """Names that ``variables`` of `apply_chat_template` can't set; empty without a template."""
        return self._chat_template.own_variables if self._chat_template else frozenset()

    def template_asks_for(self, name: str) -> bool:
        """The chat template looks at a variable of this name."""
        return self._chat_template is not None and name in self._chat_template.asked_for

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The prompt that the model was trained to see for these messages.

        Encode it with ``add_special=False``, because templates write their BOS themselves. With
        ``continue_final_message`` it ends with the last message's content. ``variables`` and
        ``tools`` go to the template.

        Raises TokenizerError when the tokenizer has no chat template, and its subclass ChatTemplateError when
        the messages do not fit the template, which is the client's fault.
        """
        if self._chat_template is None:
            raise TokenizerError(
                "the tokenizer has no chat template; add 'chat_template' to tokenizer_config.json beside it"
            )
        return self._chat_template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            variables=variables,
            tools=tools,
        )

    def require_fits(self, model_vocab_size: int) -> None:
        """Raise TokenizerError when the tokenizer can produce ids that the model has no embedding for."""
        if self.vocab_size > model_vocab_size:
            raise TokenizerError(
                f"{self.name} has ids up to {self.vocab_size - 1}, but the model's vocabulary has "
                f"{model_vocab_size} entries (0 to {model_vocab_size - 1}); use the tokenizer that the model "
                f"was trained with, or set vocab_size to {self.vocab_size} or more if the weights have it"
            )


def _without_marks(message: Message) -> Message:
    return {name: without_marks(value) if isinstance(value, str) else value for name, value in message.items()}


def _counted(ids: list[int], most: int) -> tuple[int, NDArray[np.int32]]:
    return len(ids), np.array(ids if len(ids) <= most else (), np.int32)


def _require_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"the text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}; "
            "send characters beyond U+FFFF as a complete pair"
        ) from error
