"""The application: routes to handlers, and errors to answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pipeline.front.api.admin_routes import WEIGHTS, AdminRoutes
from pipeline.front.api.anthropic.errors import anthropic_refusal
from pipeline.front.api.anthropic.routes import AnthropicRoutes
from pipeline.front.api.cancel_routes import CANCEL, CancelRoutes
from pipeline.front.api.generate_routes import GenerateRoutes
from pipeline.front.api.info_routes import MODELS, USAGE, InfoRoutes
from pipeline.front.api.node_routes import NODES, NodeRoutes
from pipeline.front.api.ollama.answer import ollama_refusal
from pipeline.front.api.ollama.routes import OllamaRoutes
from pipeline.front.api.openapi import OpenApiRoute
from pipeline.front.api.stream_routes import STREAM, StreamRoutes
from pipeline.front.api.tokenize_routes import TokenizeRoutes
from pipeline.front.http.access import KEY_HEADERS, PROBES, ApiKeys, Cors, is_open, is_operators
from pipeline.front.http.errors import NOT_FOUND, SERVER, ApiError, ClientGone, ErrorForm, openai_refusal
from pipeline.front.http.exchange import Exchange, Handler
from pipeline.front.http.throttle import REFUSED
from pipeline.front.page.routes import PageRoutes
from pipeline.front.settings import FrontSettings

log = logging.getLogger("ringserve.front")

_OPENAI = ("/completions", "/chat/completions", "/responses", "/models")  # are there without /v1, too
_ERROR_FORMS: Mapping[str, ErrorForm] = {"/api/": ollama_refusal, "/v1/messages": anthropic_refusal}
"""By the begin of the path; others have OpenAI's."""


class Front:
    """Handles exchanges, one call each."""

    def __init__(
        self,
        settings: FrontSettings,
        generate: GenerateRoutes,
        tokenize: TokenizeRoutes,
        info: InfoRoutes,
        page: PageRoutes,
        keys: ApiKeys,
        ollama: OllamaRoutes,
        anthropic: AnthropicRoutes,
        cancel: CancelRoutes,
        admin: AdminRoutes,
        streams: StreamRoutes,
        nodes: NodeRoutes,
    ) -> None:
        self._settings, self._keys, self._cors = settings, keys, Cors(settings)
        self._model, self._cancel, self._streams = info.model, cancel.cancel, streams.methods
        self._routes: dict[str, tuple[str, Handler]] = {
            **_llm_serving(generate, settings),
            "/v1/completions": ("POST", generate.completions),
            "/v1/chat/completions": ("POST", generate.chat),
            "/v1/responses": ("POST", generate.responses),
            "/v1/messages": ("POST", anthropic.create),
            "/v1/messages/count_tokens": ("POST", anthropic.count_tokens),
            "/v1/models": ("GET", info.models),
            "/api/chat": ("POST", ollama.chat),
            "/api/generate": ("POST", ollama.generate),
            "/api/tags": ("GET", ollama.tags),
            "/api/show": ("POST", ollama.show),
            "/api/ps": ("GET", ollama.running),
            "/api/version": ("GET", ollama.version),
            "/tokenize": ("POST", tokenize.tokenize),
            "/detokenize": ("POST", tokenize.detokenize),
            "/tokenizer_info": ("GET", tokenize.info),
            "/load": ("GET", info.load),
            USAGE: ("GET", info.usage),
            "/version": ("GET", info.version),
            "/serving/get_bs": ("GET", info.batch_size),
            "/serving/get_request_numbers": ("GET", info.request_numbers),
            "/serving/get_serverd_model_info": ("GET", info.model_info),
            "/health": ("GET", info.health),
            "/ping": ("GET", info.health),
            "/ready": ("GET", info.ready),
            "/metrics": ("GET", info.metrics),
            "/debug/trace": ("GET", info.trace),
            "/openapi.json": ("GET", OpenApiRoute(settings, keys).describe),
            WEIGHTS: ("GET", admin.weights),
            **page.routes(),
            **nodes.routes(),
        }
        self._changed: dict[str, Handler] = {WEIGHTS: admin.change}  # by POST, what is shown by GET

    async def __call__(self, exchange: Exchange) -> None:
        exchange.path = self._canonical(exchange)
        try:
            if self._cors:
                exchange.common = self._cors.headers(exchange)
            await self._find(exchange)(exchange)
        except ClientGone:
            pass  # there is no client to answer
        except ApiError as error:
            if error.status in (401, 403):
                log.info("%d for %s: %s", error.status, exchange.client, error.message, extra={REFUSED: True})
            await self._refuse(exchange, error)
        except Exception:
            log.exception("%s %s failed", exchange.method, exchange.path)
            await self._refuse(exchange, ApiError(500, "internal error", kind=SERVER))

    @property
    def routes(self) -> dict[str, str]:
        """Path and method of everything but what has names or ids in its path."""
        return {path: method for path, (method, _) in self._routes.items()}

    def maker(self, path: str) -> Handler | None:
        """Of answers to requests of this path, if it is there."""
        found = self._routes.get(path) or self._routes.get(path.rstrip("/"))
        return None if found is None else found[1]

    def _canonical(self, exchange: Exchange) -> str:
        """The path without what base URLs bring: a doubled slash, or no /v1."""
        path = exchange.path
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        name = path.rstrip("/")
        described = exchange.method in ("GET", "HEAD") and name == f"/models/{self._settings.model_name}"
        return f"/v1{name}" if name in _OPENAI or (described and name not in self._routes) else path

    def _find(self, exchange: Exchange) -> Handler:
        path = exchange.path if exchange.path in self._routes else exchange.path.rstrip("/")
        if self._cors and self._cors.is_preflight(exchange):
            return self._cors.preflight
        if not is_open(path):
            headers = exchange.headers
            exchange.account = self._keys.check(headers.get(b"authorization"), map(headers.get, KEY_HEADERS))
        found = self._routes.get(path)
        if found is None and path.startswith(MODELS):
            found = ("GET", self._model)
        if found is None and CANCEL.match(path):
            found = ("POST", self._cancel)
        if found is None and STREAM.match(path):
            method = exchange.method if exchange.method in self._streams else "GET"
            found = (method, self._streams[method])
        if found is None or not self._is_here(exchange.port, path):
            raise self._not_found(exchange.path)
        method, handler = found
        if exchange.method == "POST" and path in self._changed:
            return self._changed[path]
        if exchange.method != method and (exchange.method, method) != ("HEAD", "GET"):
            allow = "GET, HEAD" if method == "GET" else method
            allow += ", POST" if path in self._changed else ", DELETE" if STREAM.match(path) else ""
            told = f"{exchange.method} is not allowed here; use {method}"
            raise ApiError(405, told, headers=((b"allow", allow.encode()),))
        return handler

    def _is_here(self, port: int, path: str) -> bool:
        """The operators' paths may have a port of their own, which serves nothing else but the probes and usage."""
        metrics_port = self._settings.metrics_port
        if metrics_port is None and path == NODES:
            raise ApiError(404, f"{path} needs a port for operators: set pipeline.metrics_port", kind=NOT_FOUND)
        everywhere = metrics_port is None or path in PROBES or path == USAGE
        return everywhere or is_operators(path) == (port == metrics_port)

    def _not_found(self, path: str) -> ApiError:
        if path.startswith("/models/"):
            route = self._settings.model_route
            message = f"unknown model or path; the model here is {route} (POST /models/{route}/generate)"
            return ApiError(404, message, kind=NOT_FOUND, parameter="model")
        return ApiError(404, f"unknown path: {path[:80]}", kind=NOT_FOUND)

    @staticmethod
    async def _refuse(exchange: Exchange, error: ApiError) -> None:
        if exchange.started:
            exchange.connection.abort()  # the status has been sent: the client must see a broken answer
        else:
            forms = (form for begin, form in _ERROR_FORMS.items() if exchange.path.startswith(begin))
            await exchange.refuse(error, next(forms, openai_refusal))


def _llm_serving(generate: GenerateRoutes, settings: FrontSettings) -> dict[str, tuple[str, Handler]]:
    """The paths of the model, and of each adapter."""
    ways: dict[str, bool | None] = {"": None, "/generate": False, "/generate_stream": True}
    models = [*zip(settings.adapters, settings.adapters, strict=True), (settings.model_route, "")]
    return {
        f"/models/{name}{way}": ("POST", generate.llm_serving(adapter, streamed=streamed))
        for name, adapter in models
        for way, streamed in ways.items()
    }
