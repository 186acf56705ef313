"""What every tokenizer can do, whichever file it came from."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from model.errors import TokenizerError
from model.tokenizer.plain_text import Spans
from model.tokenizer.vocabulary import Vocabulary


class InvalidTextError(TokenizerError):
    """The text is not valid Unicode: its client's fault."""


class Tokenizer(Vocabulary):
    """A vocabulary that can encode. Immutable after loading; one instance may serve any number of requests."""

    place_matters: bool  # some tokens add something else at the beginning of a text

    def encode(self, text: str, *, add_special: bool = True, plain: Spans = ()) -> list[int]:
        """Token ids of a text. Special tokens written in the text become their ids, except in ``plain``.

        ``add_special`` adds BOS and EOS as the tokenizer's files say.

        Raises InvalidTextError for a text that has no UTF-8 form.
        """
        require_utf8(text)
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
        require_utf8(text)
        return self._encode_up_to(text, most, add_special)

    def _encode_up_to(self, text: str, most: int, add_special: bool) -> tuple[int, NDArray[np.int32]]:
        return _counted(self._encode(text, add_special), most)

    def remember(self, capacity: int) -> None:
        """Keep the ids of long texts, or of parts of them, in so many bytes; where the tokenizer can't, nothing
        changes. To be called before other threads encode."""

    @abstractmethod
    def _encode(self, text: str, add_special: bool) -> list[int]:
        """`encode` of a text that is known to be valid."""

    @abstractmethod
    def _encode_with_plain(self, text: str, add_special: bool, plain: Spans) -> list[int]:
        """`_encode`, where the text in ``plain`` spells no special token."""


def _counted(ids: list[int], most: int) -> tuple[int, NDArray[np.int32]]:
    return len(ids), np.array(ids if len(ids) <= most else (), np.int32)


def require_utf8(text: str) -> None:
    """Raises InvalidTextError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"the text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}; "
            "send characters beyond U+FFFF as a complete pair"
        ) from error
