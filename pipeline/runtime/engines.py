"""The runner that a configuration asks for. Making one allocates nothing and imports no MindSpore."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from model.errors import ConfigurationError
from model.layout import make_buckets, scored_samples, with_samples
from model.mindspore_common.ranks import Ranks
from model.mindspore_common.settings import GraphSettings
from model.runner import Bucket, Runner, RunnerFacts
from pipeline.config import Configuration
from pipeline.runtime.deterministic import why_not_deterministic
from pipeline.wire.step import MOST_CANDIDATES, Shapes
from pipeline.wire.topology import device_of

_MOST_DRAFTED = 64
"""Sampled positions of a step, drafts included, unless it has more rows: a larger one would compute rather than wait
for the weights."""

Settings = TypeVar("Settings", bound=GraphSettings)


def make_runner(config: Configuration, replica: int = 0, ranks: Ranks | None = None) -> Runner:
    """This replica's, or one of its ranks'; without ``ranks`` it is for its facts. Raises a `model.errors.ModelError`
    for settings that contradict each other."""
    ranks = ranks or Ranks(count=config.pipeline.ranks)
    runner = _ENGINES[config.pipeline.runner.kind](config, replica, ranks)
    require_deterministic(config, runner)
    if (replayed := config.pipeline.runner.replay) is None:
        return runner
    from model.replay import ReplayRunner, read_texts

    return ReplayRunner(runner, read_texts(replayed))


def facts_of(config: Configuration) -> RunnerFacts:
    """Of a replica's engine. A router has none, and needs no weights: what it does not know has no effect there.
    Raises ModelError as `make_runner` does."""
    if not config.pipeline.is_router:
        return make_runner(config).facts
    pipeline, vocab_size = config.pipeline, config.model_config.vocab_size
    assert vocab_size is not None  # the configuration was checked
    return RunnerFacts(
        name=f"router of {pipeline.max_nodes} nodes at most",
        device=pipeline.runner.device,
        vocab_size=vocab_size,
        max_length=config.max_length,
        num_blocks=config.pa_config.num_blocks,
        block_size=config.pa_config.block_size,
        block_table_width=config.block_table_width,
        buckets=emulated_buckets(pipeline.max_rows, pipeline.token_budget),
        candidates=1,
        scores=False,
    )


def shapes_of(config: Configuration, runner: Runner) -> Shapes:
    """Capacities that every process derives from the same configuration."""
    return shapes_with(config, runner.facts)


def shapes_with(config: Configuration, facts: RunnerFacts) -> Shapes:
    """The same, of an engine with these facts."""
    drafts = config.pipeline.drafts
    samples = max(bucket.samples for bucket in facts.buckets)
    return Shapes(
        token_budget=max(bucket.tokens for bucket in facts.buckets),
        max_rows=config.pipeline.max_rows,
        block_table_width=facts.block_table_width,
        vocab_size=facts.vocab_size,
        samples=samples,
        logit_rows=max(config.pipeline.logit_rows, min(1 + drafts, samples)),
        candidates=max(1, min(facts.candidates, MOST_CANDIDATES)),
        drafts=drafts,
    )


def require_deterministic(config: Configuration, runner: Runner) -> None:
    """Raises ConfigurationError if all requests are to be, and none can."""
    if config.pipeline.deterministic and (why := why_not_deterministic(runner.facts, here=runner.deterministic)):
        raise ConfigurationError(f"pipeline.deterministic is true, but {why}")


def sampled_positions(config: Configuration) -> int:
    """Of a step whose rows carry drafts; 0: none does."""
    pipeline, drafts = config.pipeline, config.pipeline.drafts
    wanted = max(pipeline.max_rows, min(_MOST_DRAFTED, pipeline.max_rows * (1 + drafts)))
    return min(wanted, pipeline.token_budget) if drafts else 0


def _emulated(config: Configuration, _replica: int, _ranks: Ranks) -> Runner:
    """A rank of it is the whole device: all answer the same."""
    from model.emulated import EmulatedRunner, EmulatedSettings

    settings = EmulatedSettings.from_mapping(
        config.pipeline.runner.emulated(),
        vocab_size=config.model_config.vocab_size,
        max_length=config.max_length,
        num_blocks=config.pa_config.num_blocks,
        block_size=config.pa_config.block_size,
        buckets=with_samples(
            emulated_buckets(config.pipeline.max_rows, config.pipeline.token_budget, sampled_positions(config)),
            _scored_samples(config),
        ),
        eos_token_id=config.model_config.end_token,
        greedy_on_device=config.pipeline.greedy_on_device,
        adapters=len(config.pipeline.lora.adapters),
    )
    return EmulatedRunner(settings)


def _scored_samples(config: Configuration) -> int:
    pipeline, vocab_size = config.pipeline, config.model_config.vocab_size
    if not pipeline.greedy_on_device or vocab_size is None:
        return 0  # no prompt is scored
    return scored_samples(pipeline.token_budget, pipeline.max_rows, vocab_size)


def emulated_buckets(max_rows: int, token_budget: int, samples: int = 0) -> tuple[Bucket, ...]:
    """Powers of two: nothing is compiled for an emulated device, so it can have many buckets."""
    return make_buckets(max_rows, token_budget, 2, samples)


def _mindspore(config: Configuration, replica: int, ranks: Ranks) -> Runner:
    from model.mindspore_runner import MindSporeRunner, MindSporeSettings

    return MindSporeRunner(_settings(config, MindSporeSettings, replica, ranks))


def _openvino(config: Configuration, replica: int, ranks: Ranks) -> Runner:
    from model.openvino import OpenVinoRunner, OpenVinoSettings

    runner = config.pipeline.runner
    dtypes: dict[str, Any] = {"weight_dtype": runner.weight_dtype, "kv_dtype": runner.kv_dtype}
    return OpenVinoRunner(replace(_settings(config, OpenVinoSettings, replica, ranks), **dtypes))


def _mindformers(config: Configuration, replica: int, ranks: Ranks) -> Runner:
    from model.mindformers_runner import MindFormersRunner, MindFormersSettings

    return MindFormersRunner(_settings(config, MindFormersSettings, replica, ranks))


def _settings(config: Configuration, kind: type[Settings], replica: int, ranks: Ranks) -> Settings:
    runner, model = config.pipeline.runner, config.model_config
    assert model.model_cfg_path is not None  # the configuration was checked
    return kind(
        config_path=model.model_cfg_path,
        checkpoint_path=None if runner.random_weights else model.checkpoint_path,
        device="Ascend" if runner.device == "Ascend" else "CPU",
        device_id=device_of(config, replica, ranks.rank),
        ranks=ranks,
        num_blocks=config.pa_config.num_blocks,
        block_size=config.pa_config.block_size,
        max_rows=config.pipeline.max_rows,
        token_budget=config.pipeline.token_budget,
        samples=sampled_positions(config),
        max_length=config.max_length,
        scored_samples=_scored_samples(config),
        threads=_threads(config),
        compile_cache_dir=runner.compile_cache if isinstance(runner.compile_cache, Path) else None,
        greedy_on_device=config.pipeline.greedy_on_device,
        adapters=tuple(config.pipeline.lora.adapters.values()),
        merged_adapter=config.pipeline.lora.merged,
    )


def _threads(config: Configuration) -> int | None:
    """Of one process: as configured, else an equal share of the CPUs; one alone has all that it finds."""
    threads, sharing = config.pipeline.runner.threads, config.pipeline.engine_processes
    return max(1, len(os.sched_getaffinity(0)) // sharing) if threads is None and sharing > 1 else threads


_ENGINES: dict[str, Callable[[Configuration, int, Ranks], Runner]] = {
    "emulated": _emulated,
    "mindformers": _mindformers,
    "mindspore": _mindspore,
    "openvino": _openvino,
}
