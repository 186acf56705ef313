"""Settings of a mindspore runner."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import ConfigurationError
from model.mindspore_common.settings import GraphSettings


@dataclass(frozen=True, slots=True)
class MindSporeSettings(GraphSettings):
    """Settings of a `MindSporeRunner`. ``config_path``: a Hugging Face ``config.json``, or its directory."""

    def __post_init__(self) -> None:
        GraphSettings.__post_init__(self)  # slots=True makes another class, which super() does not know
        if self.device != "CPU":
            raise ConfigurationError(f"device is {self.device!r}; the mindspore engine computes on CPU only")
