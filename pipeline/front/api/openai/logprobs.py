"""Log-probabilities in OpenAI's two forms."""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from pipeline.wire.delta import Delta


class TokenNames(Protocol):
    """What log-probabilities need of a tokenizer."""

    def token_text(self, token_id: int) -> str: ...

    def token_bytes(self, token_id: int) -> bytes: ...


class Logprobs(Protocol):
    """Collects tokens until `json` is called, which starts over."""

    def add(self, delta: Delta) -> None: ...

    def json(self) -> bytes: ...


class CompletionLogprobs:
    """Columns, as in /v1/completions."""

    def __init__(self, names: TokenNames, top: int) -> None:
        self._names, self._top, self._offset = names, top, 0
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("text_offset", "token_logprobs", "tokens", "top_logprobs")
        }

    def add(self, delta: Delta) -> None:
        text, columns = self._names.token_text(delta.token_id), self._columns
        columns["text_offset"].append(self._offset)
        columns["token_logprobs"].append(finite(delta.logprob))
        columns["tokens"].append(text)
        columns["top_logprobs"].append(self._best(delta, text) if self._top else None)
        self._offset += len(delta.text)

    def _best(self, delta: Delta, text: str) -> dict[str, float]:
        """The most probable tokens, and the chosen one if it is not among them. Of two with the same text, the more
        probable one."""
        best: dict[str, float] = {}
        for token, logprob in delta.top:
            best.setdefault(self._names.token_text(token), finite(logprob))
        best.setdefault(text, finite(delta.logprob))
        return best

    def json(self) -> bytes:
        columns = orjson.dumps(self._columns)
        self._clear()
        return columns


class ChatLogprobs:
    """One object per token, as in /v1/chat/completions. `bytes` identifies tokens that are parts of a character."""

    def __init__(self, names: TokenNames) -> None:
        self._names = names
        self._content: list[dict[str, Any]] = []

    def add(self, delta: Delta) -> None:
        best = [self._token(token, logprob) for token, logprob in delta.top]
        self._content.append({**self._token(delta.token_id, delta.logprob), "top_logprobs": best})

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        names = self._names
        return {
            "token": names.token_text(token_id),
            "logprob": finite(logprob),
            "bytes": list(names.token_bytes(token_id)),
        }

    def json(self) -> bytes:
        content, self._content = self._content, []
        return orjson.dumps({"content": content, "refusal": None})


def finite(logprob: float) -> float:
    """JSON has no infinity; vLLM writes -9999 instead."""
    return round(max(logprob, -9999.0), 7)
