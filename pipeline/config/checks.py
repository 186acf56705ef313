"""Checks across settings. Each is skipped when a setting that it looks at has a problem already."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

from .draft import Draft
from .engine_choice import RANKS
from .files import is_there
from .host import check_host
from .lora import check_lora
from .model_files import ModelFacts
from .pipeline_section import EMULATED_KEYS, MOST_RANKS, MOST_REPLICAS, CpuConfig, RingConfig
from .setting import fields_of

_MODEL_FILE = "model_config.model_cfg_path"
_MODEL_DIR = "pipeline.model_dir"
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_CPU_BLOCK = 16  # keys of one group in the key cache of the CPU's attention
_READ_JSON = ("openvino", "mindspore")
_RINGS = tuple(f"pipeline.rings.{name}" for name, _ in fields_of(RingConfig))

LONGEST: Final = "model_config.max_generate_length"
VOCAB: Final = "model_config.vocab_size"
BLOCKS: Final = "pa_config.num_blocks"
BLOCK_SIZE: Final = "pa_config.block_size"
ROWS: Final = "pipeline.max_rows"
RUNNER: Final = "pipeline.runner."
REPLICAS: Final = "pipeline.replicas"
PORTS: Final = "serving_config.agent_ports"


@dataclass(frozen=True, slots=True)
class _Checker:
    draft: Draft
    facts: ModelFacts

    def require(self, holds: Callable[..., object], keys: tuple[str, ...], message: str) -> None:
        """``holds`` takes the values of ``keys``; ``message`` names them by position. Unknown values pass."""
        values = [self.draft.values[key] for key in keys]
        if self.draft.bad.intersection(keys) or any(value is None for value in values):
            return
        if not holds(*values):
            self.draft.reject(keys, message.format(*values))

    def value(self, key: str) -> Any:
        return self.draft.values[key]


def check(draft: Draft, facts: ModelFacts, *, other_host: bool) -> None:
    """Everything that can be wrong about settings that are fine one by one."""
    checker = _Checker(draft, facts)
    _check_given(checker, other_host)
    for part in (_check_lengths, _check_ids, _check_batch, _check_ranks, _check_replicas, _check_runner):
        part(checker)
    for part in (_check_cpus, _check_network, _check_links, _check_rings):
        part(checker)
    missing = draft.warnings if other_host else draft.problems
    check_host(draft, facts, missing)
    check_lora(draft, missing)


def _check_given(checker: _Checker, other_host: bool) -> None:
    path, kind = checker.value(_MODEL_FILE), checker.value(RUNNER + "kind")
    if checker.draft.bad.intersection((_MODEL_FILE, _MODEL_DIR)):
        return  # that is the mistake
    if path is not None and not is_there(path) and kind != "emulated" and not other_host:
        return  # that is, and check_host reports it
    if path is None:
        reason = "no model configuration is named that would tell it"
    else:
        reason = f"the model's configuration, {path}, {'does not tell it' if is_there(path) else 'does not exist'}"
    for key in (VOCAB, LONGEST):
        if checker.value(key) is None and key not in checker.draft.bad:
            keys = (key, _MODEL_FILE, _MODEL_DIR)
            checker.draft.problems.append(checker.draft.problem_at(keys, f"{key} is missing, and {reason}; set it"))


def _check_lengths(checker: _Checker) -> None:
    checker.require(
        lambda prompt, longest: prompt <= longest,
        ("model_config.seq_length", LONGEST),
        "model_config.seq_length is {0}, but a sequence has at most {1} tokens (max_generate_length); "
        "lower it to {1} or raise max_generate_length",
    )
    checker.require(
        lambda table, longest: longest <= table,
        ("pa_config.decode_seq_length", LONGEST),
        "pa_config.decode_seq_length is {0}, so a row of the block table is too narrow for a sequence of {1} tokens "
        "(model_config.max_generate_length); make it at least {1}",
    )
    checker.require(
        lambda blocks, size, longest: blocks * size >= longest,
        (BLOCKS, BLOCK_SIZE, LONGEST),
        "pa_config.num_blocks x block_size is {0} x {1}, less than one sequence of {2} tokens "
        "(model_config.max_generate_length); raise num_blocks or lower max_generate_length",
    )
    positions = checker.facts.max_positions
    checker.require(
        lambda longest: positions is None or longest <= positions,
        (LONGEST,),
        f"{LONGEST} is {{0}}, but the model knows {positions} positions; lower it to {positions}",
    )


def _check_ids(checker: _Checker) -> None:
    vocab = checker.facts.vocab_size
    checker.require(
        lambda size: vocab is None or size == vocab,
        (VOCAB,),
        f"{VOCAB} is {{0}}, but the model's configuration says {vocab}; make it {vocab} or leave it out",
    )
    for key in ("model_config.pad_token_id", "model_config.end_token"):
        checker.require(
            lambda token, size: token < size, (key, VOCAB), key + " is {0}, outside the vocabulary of {1} tokens"
        )
    checker.require(
        lambda ids, size: ids[0] < ids[1] <= size,
        (RUNNER + "token_range", VOCAB),
        RUNNER + "token_range is {0}; expected [first, last + 1] inside the vocabulary of {1} tokens",
    )


def _check_batch(checker: _Checker) -> None:
    checker.require(
        lambda budget, rows, _: budget >= rows,
        ("pipeline.token_budget", ROWS, "model_config.decode_batch_size"),
        "pipeline.token_budget is {0}, but {1} rows (pipeline.max_rows, else decode_batch_size) need a token each; "
        "raise token_budget to {1} or lower max_rows",
    )
    checker.require(
        lambda blocks, rows, _: blocks >= rows,
        (BLOCKS, ROWS, "model_config.decode_batch_size"),
        "pa_config.num_blocks is {0}, but {1} rows (pipeline.max_rows, else decode_batch_size) need a block each; "
        "raise num_blocks or lower max_rows",
    )
    checker.require(
        lambda logits, rows: logits <= rows,
        ("pipeline.logit_rows", ROWS),
        "pipeline.logit_rows is {0}, but there are {1} rows (pipeline.max_rows); leave it out or lower it to {1}",
    )


def _check_ranks(checker: _Checker) -> None:
    checker.require(
        lambda ranks, ports: len(ports) in {1, ranks},
        (RANKS, PORTS),
        f"{RANKS} is {{0}}, but {PORTS} lists {{1}}, one per rank; leave one of them out",
    )
    checker.require(
        lambda ranks, _: ranks <= MOST_RANKS, (RANKS, PORTS), f"{RANKS} is {{0}}; at most {MOST_RANKS} are possible"
    )


def _check_replicas(checker: _Checker) -> None:
    checker.require(
        lambda directory, replicas: replicas == 1,
        ("pipeline.save_logits_dir", "pipeline.replicas"),
        "pipeline.save_logits_dir is set, which is for one batch, but pipeline.replicas is {1}; make it 1",
    )


def _check_runner(checker: _Checker) -> None:
    if checker.value(RUNNER + "kind") == "emulated":
        _check_cost_model(checker)
        return
    checker.require(
        lambda kind, device: kind not in _READ_JSON or device == "CPU",
        (RUNNER + "kind", RUNNER + "device"),
        f"{RUNNER}kind is {{0}}, which computes on CPU, but {RUNNER}device is {{1}}; leave one of them out",
    )
    checker.require(
        lambda kind, path: kind not in _READ_JSON or path.suffix == ".json",
        (RUNNER + "kind", _MODEL_FILE),
        f"{RUNNER}kind is {{0}}, which reads a Hugging Face config.json, but {_MODEL_FILE} is {{1}}; "
        f"give a config.json, or leave {RUNNER}kind out",
    )
    for name in ("weight_dtype", "kv_dtype"):
        checker.require(
            lambda value, kind: kind == "openvino",
            (RUNNER + name, RUNNER + "kind"),
            f"{RUNNER}{name} is {{0}}, which only the openvino engine knows, not {{1}}; leave it out, or set "
            f"{RUNNER}kind to openvino (pip install 'ringserve[openvino]')",
        )
    for name in EMULATED_KEYS:
        checker.require(
            lambda value, kind: False,
            (RUNNER + name, RUNNER + "kind"),
            f"{RUNNER}{name} is for an emulated device; set {RUNNER}kind to emulated or leave it out",
        )
    checker.require(
        lambda ranks, kind, _: ranks == 1 or kind != "openvino",
        (RANKS, RUNNER + "kind", PORTS),
        f"{RANKS} is {{0}}, by default one per port of {PORTS}, but the {{1}} engine computes on one device; make it "
        f"1 ({REPLICAS} are several copies of the model), or use {RUNNER}kind mindspore or mindformers",
    )
    checker.require(
        lambda size, device: device != "CPU" or size % _CPU_BLOCK == 0,
        (BLOCK_SIZE, RUNNER + "device"),
        f"pa_config.block_size is {{0}}; on CPU it must be a multiple of {_CPU_BLOCK}",
    )


def _check_cpus(checker: _Checker) -> None:
    for stage in fields(CpuConfig):
        key = f"pipeline.cpus.{stage.name}"
        checker.require(
            lambda cpus, kind, device: cpus != "device" or (kind, device) == ("mindformers", "Ascend"),
            (key, RUNNER + "kind", RUNNER + "device"),
            key + f" is device, but no Ascend device computes ({RUNNER}kind {{1}}, device {{2}}); name CPUs",
        )


def _check_cost_model(checker: _Checker) -> None:
    key = RUNNER + "cost_model"
    cost = checker.value(key)
    if key not in checker.draft.bad and "fixed_ms" not in (cost or {}):
        advice = "an emulated device needs it (milliseconds of every step)"
        checker.draft.reject([key, RUNNER + "kind"], f"{key}.fixed_ms is missing; {advice}")


def _check_network(checker: _Checker) -> None:
    checker.require(
        _SEGMENT.match,
        ("serving_config.model_route",),
        "serving_config.model_route is {0!r}; expected one path segment of letters, digits, '.', '_' and '-'",
    )
    checker.require(
        lambda metrics, port: metrics != port or metrics == 0,
        ("pipeline.metrics_port", "serving_config.server_port"),
        "pipeline.metrics_port is {0}, the same as serving_config.server_port; choose another, or leave it out to "
        "have /metrics there",
    )


def _check_links(checker: _Checker) -> None:
    most, listen = checker.value("pipeline.max_nodes"), checker.value("pipeline.link.listen")
    checker.require(
        lambda nodes, most, listen: not most,
        ("pipeline.nodes", "pipeline.max_nodes", "pipeline.link.listen"),
        "pipeline.nodes or pipeline.max_nodes is set, and so is pipeline.link.listen; a server is a router or a "
        "node: leave one out",
    )
    checker.require(
        lambda nodes, most: len(set(nodes)) == len(nodes) <= most,
        ("pipeline.nodes", "pipeline.max_nodes"),
        "pipeline.nodes is {0}; expected pipeline.max_nodes ({1}) at most, and each node once",
    )
    checker.require(
        lambda most, replicas: most * replicas <= MOST_REPLICAS,
        ("pipeline.max_nodes", "pipeline.replicas"),
        f"this router has {{0}} nodes (pipeline.nodes, pipeline.max_nodes) with {{1}} replicas each; {MOST_REPLICAS} "
        "replicas are the most; lower either",
    )
    for name in ("ca", "certificate", "key") if most or listen else ():
        key = f"pipeline.link.{name}"
        if checker.value(key) is None and key not in checker.draft.bad:
            advice = "ringserve certificates makes some for a try"
            keys = (key, "pipeline.nodes", "pipeline.max_nodes", "pipeline.link.listen")
            checker.draft.problems.append(
                checker.draft.problem_at(keys, f"{key} is missing, which a link needs; set it ({advice})")
            )


def _check_rings(checker: _Checker) -> None:
    for key in _RINGS:
        checker.require(
            lambda size: size & (size - 1) == 0, (key,), key + " is {0}; a ring's size must be a power of two"
        )
    checker.require(
        lambda ring, body: ring >= 2 * body,
        ("pipeline.rings.request_bytes", "pipeline.body_limit_bytes"),
        "pipeline.rings.request_bytes is {0}, of which a request may take half, less than body_limit_bytes ({1}); "
        "raise request_bytes or lower body_limit_bytes",
    )
    checker.require(
        lambda all_bodies, body: all_bodies >= body,
        ("pipeline.body_memory_bytes", "pipeline.body_limit_bytes"),
        "pipeline.body_memory_bytes is {0}, less than one body (body_limit_bytes, {1}); raise it or lower the other",
    )
