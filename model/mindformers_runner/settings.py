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
        if self.adapters or self.merged_adapter is not None:
            key = "adapters" if self.adapters else "merged_adapter"
            raise ConfigurationError(
                f"{key}: the mindformers engine has no adapters; use pipeline.runner.kind: mindspore, on CPU, or "
                "merge one with PEFT (merge_and_unload), and serve the result"
            )
        require_choice("attention", self.attention, ("custom", "plain"))
