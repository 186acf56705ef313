"""The servers that are attacked: the configuration of each, and the limits that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import load_configuration
from scripts.lab.paths import ROOT

CONFIGS = ROOT / "configs"
EMULATED, DEMO = CONFIGS / "emulated_910b.yaml", CONFIGS / "demo.yaml"
USUAL = "usual"

_LONG = 131_072  # tokens: the context of today's models
_BODY = (
    "pipeline.body_limit_bytes=4194304",
    "pipeline.drain_timeout_s=1",  # a server that is not at rest is replaced
    "pipeline.log.level=warning",
)
_LONG_CONTEXT = (
    *_BODY,
    f"model_config.seq_length={_LONG}",
    f"model_config.max_generate_length={_LONG}",
    f"pa_config.decode_seq_length={_LONG}",
    "pipeline.rings.reply_bytes=4194304",
)
_EMULATED_STANDS: Mapping[str, tuple[str, ...]] = {
    USUAL: (*_LONG_CONTEXT, "pa_config.num_blocks=9216"),
    # As many blocks as the longest prompt needs, and one that is never given out: it waits while anybody holds one
    "tight": (*_LONG_CONTEXT, "pa_config.num_blocks=8193"),
    # 65 long sequences at once, on a device that reads prompts fast: their host work is what is left
    "many": (
        *_BODY,
        "pipeline.max_rows=80",
        "pa_config.num_blocks=20480",
        "pipeline.token_budget=4096",
        "pipeline.runner.cost_model.per_token_ms=0.001",
        "pipeline.runner.cost_model.per_cached_token_ms=0",
    ),
    "short of blocks": _BODY,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What bodies at the limits are made from."""

    max_length: int  # tokens of a sequence
    prompt_tokens: int  # longest prompt
    prompt_chars: int  # longest text of a prompt
    body_bytes: int

    @property
    def body_room(self) -> int:
        """For the largest part of a body."""
        return self.body_bytes - 1024


@dataclass(frozen=True, slots=True)
class Stand:
    """A server and its limits. Only on an emulated one does the attacked server's time differ by its own fault."""

    name: str
    file: Path
    overrides: tuple[str, ...]
    facts: Facts
    emulated: bool
    device: str

    @classmethod
    def of(cls, name: str, file: Path, overrides: tuple[str, ...]) -> Stand:
        """Raises ConfigurationError."""
        config = load_configuration(file, overrides)
        facts = Facts(
            config.max_length,
            config.max_prompt,
            config.pipeline.prompt_limit_chars,
            config.pipeline.body_limit_bytes,
        )
        emulated = config.pipeline.runner.kind == "emulated"
        device = f"emulated: {config.pipeline.runner.name}" if emulated else config.model_config.model_name
        return cls(name, file, overrides, facts, emulated, device)


def stands_of(file: Path, overrides: tuple[str, ...] = ()) -> dict[str, Stand]:
    """By name. The emulated device's can be given any length and number of blocks; a model's are what they are."""
    known = _EMULATED_STANDS if file.resolve() == EMULATED.resolve() else {USUAL: _BODY}
    return {name: Stand.of(name, file, (*own, *overrides)) for name, own in known.items()}
