"""Handlers of Ollama's paths."""

from __future__ import annotations

import hashlib
import time
from typing import Any, Final

from model.tokenizer import Tokenizer
from pipeline.front.api.body import Body, Reading
from pipeline.front.api.fields import also, given
from pipeline.front.api.generate_routes import GenerateRoutes
from pipeline.front.api.json_body import parse_object
from pipeline.front.api.ollama.answer import timestamp
from pipeline.front.api.ollama.request import (
    OllamaBody,
    OllamaChat,
    OllamaGenerate,
    adapter_of,
    check_name,
    parse_ollama_chat,
    parse_ollama_generate,
    read_ollama,
    tagged,
)
from pipeline.front.api.schema import schema_at
from pipeline.front.delivery.backend import Backend
from pipeline.front.http.exchange import Exchange, answer_json
from pipeline.front.settings import FrontSettings

VERSION: Final = "0.32.15"
"""Of Ollama: whose API this is. By it clients decide what they may ask for; `/version` is RingServe's own."""

_ARCHITECTURE: Final = "ringserve"  # by which clients find the rest of model_info
_FOREVER: Final = "2999-12-31T00:00:00Z"  # when a model is unloaded that stays loaded
_TYPES: Final = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@also({"system template options": ({},)})
class OllamaShow(OllamaBody):
    name: str | None = given(None, "Older name of model.")
    verbose: bool = given(False, "Accepted without effect: there is nothing more to show.")


class OllamaRoutes:
    """`generate` serves what generates."""

    def __init__(
        self, settings: FrontSettings, backend: Backend, tokenizer: Tokenizer | None, generate: GenerateRoutes
    ) -> None:
        self._settings, self._backend, self._tokenizer, self._generate = settings, backend, tokenizer, generate
        self._started = timestamp(int(time.time()))
        kinds: tuple[type[Body], ...] = (OllamaChat, OllamaGenerate)
        for kind in kinds:
            schema_at(kind, (), settings)

    async def chat(self, exchange: Exchange) -> None:
        await self._generate.serve(
            exchange, lambda body, identity, reading: parse_ollama_chat(body, identity, self._tokenizer, reading)
        )

    async def generate(self, exchange: Exchange) -> None:
        await self._generate.serve(
            exchange, lambda body, identity, reading: parse_ollama_generate(body, identity, self._tokenizer, reading)
        )

    async def version(self, exchange: Exchange) -> None:
        await answer_json(exchange, {"version": VERSION})

    async def tags(self, exchange: Exchange) -> None:
        more = {"modified_at": self._started}
        await answer_json(exchange, {"models": [model | more for model in self._listed()]})

    async def running(self, exchange: Exchange) -> None:
        """The model and its adapters, once they are loaded."""
        more = {"expires_at": _FOREVER, "size_vram": 0, "context_length": self._settings.max_length}
        listed = self._listed() if self._backend.ready else []
        await answer_json(exchange, {"models": [model | more for model in listed]})

    async def show(self, exchange: Exchange) -> None:
        asked = read_ollama(OllamaShow, parse_object(await exchange.read_body()), Reading(self._settings))
        if asked.name is not None:
            check_name(asked.name, self._settings)
        adapter = adapter_of(asked.model or asked.name, self._settings)
        await answer_json(exchange, self._shown(adapter))

    def _shown(self, adapter: str) -> dict[str, Any]:
        settings, tokenizer = self._settings, self._tokenizer
        info = {
            "general.architecture": _ARCHITECTURE,
            "general.basename": settings.model_name,
            f"{_ARCHITECTURE}.context_length": settings.max_length,
            f"{_ARCHITECTURE}.vocab_size": settings.vocab_size,
        }
        return {
            "modelfile": "",
            "parameters": "",
            "template": "" if tokenizer is None else tokenizer.chat_template or "",
            "details": self._details(adapter),
            "model_info": info,
            "capabilities": self._capabilities,
            "modified_at": self._started,
        }

    @property
    def _capabilities(self) -> list[str]:
        settings, tokenizer = self._settings, self._tokenizer
        shows_tools = tokenizer is not None and tokenizer.template_asks_for("tools")
        more = {"tools": settings.calls_tools and shows_tools, "thinking": settings.reasons}
        return ["completion", *(name for name, there in more.items() if there)]

    def _listed(self) -> list[dict[str, Any]]:
        """Sizes are not known here, and 0; the digest is of the name, which stands for the model."""
        names = {tagged(name): name for name in (self._settings.model_name, *self._settings.adapters)}
        return [
            {
                "name": name,
                "model": name,
                "size": 0,
                "digest": hashlib.sha256(name.encode()).hexdigest(),
                "details": self._details(adapter_of(own, self._settings)),
            }
            for name, own in names.items()
        ]

    def _details(self, adapter: str) -> dict[str, Any]:
        dtype = self._settings.dtype
        return {
            "parent_model": tagged(self._settings.model_name) if adapter else "",
            "format": "",
            "family": _ARCHITECTURE,
            "families": [_ARCHITECTURE],
            "parameter_size": "",
            "quantization_level": _TYPES.get(dtype, dtype),
            "context_length": self._settings.max_length,
        }
