"""Grammars at work: compiled for a vocabulary, then one matcher a row."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.grammar.errors import GrammarError
from model.grammar.library import load, new_matcher, refusal
from model.tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance

UInt32 = NDArray[np.uint32]


class Vocabulary:
    """The bytes of every token, in the library's form: made once, shared by all grammars.

    Takes half a second and 42 MiB for 128k tokens, 0.1 s and 13 MiB for 32k, 4 MiB for 2k, and a few MiB more for the
    pieces that the tokenizer remembers (`scripts/bench/grammar.py` measures it). Make it in a thread.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_ids: Collection[int]) -> None:
        """``vocab_size``: the model's, at least the tokenizer's; ids without a token are never allowed.

        ``end_ids``: tokens that end an answer, allowed where a grammar may end. Raises GrammarError without any below
        ``vocab_size``. ModuleNotFoundError: llguidance is not installed.
        """
        ends = sorted(end for end in end_ids if 0 <= end < vocab_size)
        if not ends:
            raise GrammarError("end_ids", "the model names no end token, so that no answer could end by its grammar")
        self.size = vocab_size
        source = _Source(tokenizer, vocab_size, ends)
        self.library: llguidance.LLTokenizer = load().LLTokenizer(source, eos_token=ends)
        source.by_bytes = self.library.greedy_tokenize
        self.known = _pack([bool(data) or at in ends for at, data in enumerate(source.tokens)])


class _Source:
    """What the library asks of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, ends: list[int]) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset({*tokenizer.special_ids, *ends})
        self.by_bytes: Callable[[str], list[int]] = (
            lambda text: []
        )  # the longest tokens first, once there is a library
        self.eos_token_id = ends[0]
        self.special_token_ids = sorted(self._special)
        self.tokens = tokenizer.every_token_bytes(vocab_size)

    def __call__(self, text: str) -> list[int]:
        """Where only one text can follow, the library allows the first of these tokens alone: they must be its bytes.

        Tokenizers that put a space in front of a text do not do so behind a line's end.
        """
        ids = self._encode(text)
        if self._exact(ids, text):
            return ids
        line = self._encode("\n")
        ids = self._encode(f"\n{text}")
        if ids[: len(line)] == line and self._exact(ids[len(line) :], text):
            return ids[len(line) :]
        return self.by_bytes(text)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False)

    def _exact(self, ids: list[int], text: str) -> bool:
        """Special tokens that are written in a text would be taken for what they mean."""
        return self._special.isdisjoint(ids) and b"".join(self.tokens[at] for at in ids) == text.encode()


def _pack(allowed: list[bool]) -> UInt32:
    padded = np.zeros(-(-len(allowed) // 32) * 32, bool)
    padded[: len(allowed)] = allowed
    return np.packbits(padded, bitorder="little").view("<u4")


class Grammars:
    """Compiled grammars of a vocabulary, the latest ones kept. For any number of threads."""

    def __init__(self, vocabulary: Vocabulary, most: int = 8) -> None:
        """``most``: how many are kept, KiB each at first, up to 100 MiB if long bounded strings were made with it."""
        self.vocabulary = vocabulary
        self._most = most
        self._kept: OrderedDict[str, llguidance.LLMatcher] = OrderedDict()
        self._lock = Lock()

    def compile(self, text: str) -> None:
        """Have ``text`` ready for `matcher`: up to 250 ms; for threads, it releases the GIL. Raises GrammarError."""
        self._prototype(text)

    def matcher(self, text: str, *, fresh: bool = False) -> Matcher:
        """A new matcher at the beginning of a text: some 20 µs if the grammar is compiled. Raises GrammarError.

        All matchers of a text share its lexer, whose states only grow, up to a limit, at which all of them fail.
        ``fresh``: begin with a new one, which later matchers of the text get, too.
        """
        return Matcher(self._prototype(text, fresh=fresh).deep_copy(), self.vocabulary)

    def __contains__(self, text: str) -> bool:
        """Whether `matcher` would return at once."""
        return text in self._kept

    def _prototype(self, text: str, *, fresh: bool = False) -> llguidance.LLMatcher:
        with self._lock:
            if text in self._kept and not fresh:
                self._kept.move_to_end(text)
                return self._kept[text]
        compiled = new_matcher(self.vocabulary.library, text)  # two threads may do it twice; better than to wait
        with self._lock:
            self._kept[text] = compiled
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return compiled


class Matcher:
    """How far one answer has got in its grammar. Not for two threads at once.

    After a fault (`error`) it allows nothing any more: the row must fail, not go on unmasked.
    """

    __slots__ = ("_library", "_vocabulary", "error")

    def __init__(self, library: llguidance.LLMatcher, vocabulary: Vocabulary) -> None:
        self._library = library
        self._vocabulary = vocabulary
        self.error = ""
        """What went wrong, for the client; "" if nothing has."""

    def fill(self, mask: UInt32) -> None:
        """Write into ``mask``, uint32 ``[ceil(vocab / 32)]`` and contiguous, which tokens may come next."""
        if mask.shape != self._vocabulary.known.shape or mask.dtype != np.uint32 or not mask.flags.c_contiguous:
            raise ValueError(f"a mask is uint32 {self._vocabulary.known.shape}, not {mask.dtype} {mask.shape}")
        if self._sound():
            self._library.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self._sound():
            np.bitwise_and(mask, self._vocabulary.known, out=mask)
        else:
            mask[:] = 0

    def take(self, token: int) -> bool:
        """Go on behind ``token``; false, with `error` set, if it was not allowed or a limit was reached."""
        if self._sound():
            self._library.consume_token(token)
        return self._sound()

    def forced(self, most: int) -> list[int]:
        """The next tokens, up to ``most``, where only one text can follow; they are not taken."""
        return self._library.compute_ff_tokens()[:most] if self._sound() else []

    def replay(self, tokens: Iterable[int]) -> bool:
        """`take` for each; what a resumed answer has already."""
        if self._sound():
            self._library.consume_tokens(list(tokens))
        return self._sound()

    @property
    def may_end(self) -> bool:
        """Whether the text so far is a whole one."""
        return not self.error and self._library.is_accepting()

    @property
    def stopped(self) -> bool:
        """Nothing can follow but an end token: the answer is complete, or the matcher has failed."""
        return bool(self.error) or self._library.is_stopped()

    def copy(self) -> Matcher:
        return Matcher(self._library.deep_copy(), self._vocabulary)

    def _sound(self) -> bool:
        """The library never raises, so this is asked after every call."""
        if not self.error and self._library.is_error():
            self.error = str(refusal(self._library.get_error()))
        return not self.error
