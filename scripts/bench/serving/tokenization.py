"""The server's tokenizer: from its files, or by asking the server."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from scripts.bench.serving.prompts import Encode
from scripts.lab.errors import BenchError

_TIMEOUT_S = 300.0  # a busy machine, a large model


def local_encoder(path: Path) -> Encode:
    """From a tokenizer.json, a tokenizer.model or their folder. Raises BenchError."""
    from model.errors import TokenizerError
    from model.tokenizer import load_tokenizer

    try:
        return load_tokenizer(path).encode
    except TokenizerError as error:
        raise BenchError(f"--tokenizer: {error}") from error


def server_encoder(base_url: str, model: str, headers: Mapping[str, str]) -> Encode:
    """Asks ``POST /tokenize``, in vLLM's form or, where that is not understood, in llama.cpp's. Raises BenchError."""
    forms: tuple[dict[str, Any], ...] = (
        {"model": model, "prompt": "ring", "add_special_tokens": True},
        {"content": "ring", "add_special": True},
    )
    for form in forms:
        try:
            answer = post_json(f"{base_url}/tokenize", form, headers)
        except (OSError, ValueError):
            continue
        if isinstance(answer, dict) and answer.get("tokens"):
            return _asking(f"{base_url}/tokenize", form, headers)
    raise BenchError(
        f"{base_url} has no /tokenize that could be asked; give the model's tokenizer with --tokenizer PATH "
        "(tokenizer.json, tokenizer.model or their folder)"
    )


def _asking(url: str, form: dict[str, Any], headers: Mapping[str, str]) -> Encode:
    field = "prompt" if "prompt" in form else "content"

    def encode(text: str) -> list[int]:
        try:
            return [int(token) for token in post_json(url, form | {field: text}, headers)["tokens"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{url} failed: {error}") from error

    return encode


def post_json(url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
    """Raises OSError (HTTPError among them), ValueError."""
    request = urllib.request.Request(  # noqa: S310 - the base URL was checked to be http
        url, orjson.dumps(body), dict(headers) | {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - likewise
        return orjson.loads(answer.read())


def get_json(url: str, headers: Mapping[str, str]) -> Any:
    """Raises OSError, ValueError."""
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - likewise
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - likewise
        return orjson.loads(answer.read())


def first_model(base_url: str, headers: Mapping[str, str]) -> str:
    """The name of the first model that the server lists. Raises BenchError."""
    try:
        return str(get_json(f"{base_url}/v1/models", headers)["data"][0]["id"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BenchError(f"{base_url}/v1/models names no model ({error}); give it with --model") from error
