"""The server that is asked: one that runs, or a RingServe that is started for the time of a run."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from model.emulated import CostModel
from model.errors import TokenizerError
from model.tokenizer import load_tokenizer
from pipeline.config import Configuration, ConfigurationError, load_configuration
from scripts.bench.serving.workload import Encode
from scripts.lab.errors import BenchError
from scripts.lab.processes import Running
from scripts.lab.server import WARM, launched, read_metrics

_TIMEOUT_S = 300.0  # a busy machine, a large model
_START_S = 600.0  # its graphs are compiled first
_SCALED = tuple(cost.name for cost in fields(CostModel) if cost.name.endswith("_ms"))

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    base_url: str
    model: str
    device: str
    tokenizer: Path | None
    headers: Headers
    process: Running | None  # of a server of our own

    def encoder(self) -> Encode:
        """From a tokenizer.json, a tokenizer.model or their folder, or by asking the server. Raises BenchError."""
        if self.tokenizer is not None:
            return local_encoder(self.tokenizer)
        return server_encoder(self.base_url, self.model, self.headers)

    def cpu_s(self) -> float:
        """So far. Of a server that somebody else has started nothing is known."""
        return self.process.cpu_s() if self.process is not None else 0.0

    def counters(self) -> dict[str, float]:
        """What a RingServe has counted so far; empty where there is none."""
        try:
            metrics = read_metrics(self.base_url, self.headers)
        except (OSError, ValueError):
            return {}
        found = {}
        for name, counter, labels in _COUNTERS:
            with contextlib.suppress(KeyError):
                found[name] = metrics.total(counter, **labels)
        return found


_COUNTERS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("preemptions", "num_preemptions_total", {}),
    ("steps", "steps_total", {"stage": "inference"}),
    ("prefix_cache_hits", "prefix_cache_hits_total", {}),
)


@contextlib.contextmanager
def target(options: argparse.Namespace) -> Iterator[Target]:
    """Raises BenchError."""
    headers = dict(options.headers)
    if options.config is None:
        url = options.base_url.rstrip("/")
        # llm-serving's requests name no model
        model = options.model or ("" if options.backend == "llm-serving" else first_model(url, headers))
        yield Target(url, model, f"that of the server at {url}", options.tokenizer, headers, None)
        return
    logits = (f"pipeline.save_logits_dir={options.save_logits.absolute()}",) if options.save_logits else ()
    own = OwnServer.prepare(options.config, (*options.overrides, *logits), options.time_scale)
    model = options.model or own.config.pipeline.model_name
    tokenizer = options.tokenizer or own.config.tokenizer.vocab_file
    with (
        tempfile.TemporaryDirectory(prefix="ringserve-bench-") as folder,
        launched(own.file, own.overrides, Path(folder) / "server.log", timeout_s=_START_S) as process,
    ):
        yield Target(process.base_url, model, own.device, tokenizer, headers, process)


@dataclass(frozen=True, slots=True)
class OwnServer:
    """How it is started."""

    file: Path
    overrides: tuple[str, ...]
    config: Configuration
    time_scale: float

    @classmethod
    def prepare(cls, file: Path, overrides: Sequence[str], time_scale: float) -> OwnServer:
        """Any free port; with a time scale, a device that is so many times as fast. Raises BenchError."""
        every = (WARM, *overrides, "serving_config.server_port=0")
        runner = _load(file, every).pipeline.runner
        if time_scale != 1.0:
            if runner.kind != "emulated":
                raise BenchError(
                    f"--time-scale {time_scale:g}: only an emulated device can be made faster, and {file} has "
                    f"pipeline.runner.kind {runner.kind}; leave --time-scale out"
                )
            cost = runner.cost_model or {}
            parts = {name: float(cost[name]) / time_scale for name in _SCALED if name in cost}
            every += tuple(f"pipeline.runner.cost_model.{name}={ms!r}" for name, ms in parts.items())
        return cls(file, every, _load(file, every), time_scale)

    @property
    def device(self) -> str:
        """Says "emulated" where nothing real computes."""
        runner = self.config.pipeline.runner
        if runner.kind != "emulated":
            return f"{self.config.model_config.model_name} on {runner.device}"
        scale = f", {self.time_scale:g} times as fast as it is" if self.time_scale != 1.0 else ""
        return f"emulated: {runner.name or 'device'}{scale}"


def _load(file: Path, overrides: Sequence[str]) -> Configuration:
    try:
        return load_configuration(file, overrides)
    except ConfigurationError as error:
        raise BenchError(str(error)) from error


# ---- what a server says about itself -----------------------------------------------------------------------------


def ask(url: str, headers: Headers, body: Mapping[str, Any] | None = None) -> bytes:
    """POST with a body, else GET. Raises OSError (HTTPError among them), ValueError."""
    data = None if body is None else orjson.dumps(body)
    fields = dict(headers) | ({"content-type": "application/json"} if data else {})
    request = urllib.request.Request(url, data, fields)  # noqa: S310 - the base URL was checked to be http
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - likewise
        content: bytes = answer.read()
    return content


def ask_json(url: str, headers: Headers, body: Mapping[str, Any] | None = None) -> Any:
    """Raises OSError, ValueError."""
    return orjson.loads(ask(url, headers, body))


def first_model(base_url: str, headers: Headers) -> str:
    """The name of the first model that the server lists. Raises BenchError."""
    try:
        return str(ask_json(f"{base_url}/v1/models", headers)["data"][0]["id"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BenchError(f"{base_url}/v1/models names no model ({error}); give it with --model") from error


def local_encoder(path: Path) -> Encode:
    """Raises BenchError."""
    try:
        return load_tokenizer(path).encode
    except TokenizerError as error:
        raise BenchError(f"--tokenizer: {error}") from error


def server_encoder(base_url: str, model: str, headers: Headers) -> Encode:
    """Asks ``POST /tokenize``, in vLLM's form or, where that is not understood, in llama.cpp's. Raises BenchError."""
    url = f"{base_url}/tokenize"
    forms: dict[str, dict[str, Any]] = {
        "prompt": {"model": model, "add_special_tokens": True},
        "content": {"add_special": True},
    }
    for field, form in forms.items():
        with contextlib.suppress(OSError, ValueError):
            answer = ask_json(url, headers, form | {field: "ring"})
            if isinstance(answer, dict) and answer.get("tokens"):
                return partial(_tokens, url, headers, form, field)
    raise BenchError(
        f"{base_url} has no /tokenize that could be asked; give the model's tokenizer with --tokenizer PATH "
        "(tokenizer.json, tokenizer.model or their folder)"
    )


def _tokens(url: str, headers: Headers, form: dict[str, Any], field: str, text: str) -> list[int]:
    try:
        return [int(token) for token in ask_json(url, headers, form | {field: text})["tokens"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{url} failed: {error}") from error
