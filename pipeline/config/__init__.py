"""Configuration: llm-serving's YAML and a section of our own, checked as a whole before anything starts."""

from .auto import Choice
from .configuration import Configuration, load_configuration, load_folder
from .errors import ConfigurationError, Problem
from .live import live_keys, values_of, with_values
from .overrides import Override
from .pipeline_section import (
    MOST_ADAPTERS,
    CpuConfig,
    LogConfig,
    LoraConfig,
    PipelineConfig,
    RingConfig,
    RunnerConfig,
    SpinConfig,
)
from .sections import ModelConfig, PagedAttentionConfig, ServingConfig, TokenizerConfig

__all__ = [
    "MOST_ADAPTERS",
    "Choice",
    "Configuration",
    "ConfigurationError",
    "CpuConfig",
    "LogConfig",
    "LoraConfig",
    "ModelConfig",
    "Override",
    "PagedAttentionConfig",
    "PipelineConfig",
    "Problem",
    "RingConfig",
    "RunnerConfig",
    "ServingConfig",
    "SpinConfig",
    "TokenizerConfig",
    "live_keys",
    "load_configuration",
    "load_folder",
    "values_of",
    "with_values",
]
