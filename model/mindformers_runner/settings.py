"""Settings of a mindformers runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.errors import ConfigurationError
from model.mindspore_common.settings import GraphSettings, require_choice


@dataclass(frozen=True, slots=True)
class MindFormersSettings(GraphSettings):
    """Settings of a `MindFormersRunner`."""

    attention: Literal["custom", "plain"] = "custom"
    """CPU: the C++ operator, or MindSpore's own operators (slower; there to compare with)."""

    def __post_init__(self) -> None:
        GraphSettings.__post_init__(self)  # slots=True makes another class, which super() does not know
        if self.adapters:
            raise ConfigurationError(
                "adapters: the mindformers engine has none beside a model; use pipeline.runner.kind: mindspore, on "
                "CPU, or merge one (merged_adapter)"
            )
        require_choice("attention", self.attention, ("custom", "plain"))
