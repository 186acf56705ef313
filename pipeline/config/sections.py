"""llm-serving's sections, with the keys that have an effect here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from .kinds import PATH, TEXT, auto_or, choice, dtype, integer, largest, list_of, only
from .setting import Ignored, setting

_LENGTH = largest(integer(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The model, and its longest prompt and sequence."""

    model_name: str = setting(TEXT, "llama", "name of the model in logs and answers")
    model_cfg_path: Path | None = setting(
        PATH,
        None,
        "the model's configuration: a mindformers YAML, or a Hugging Face `config.json` or its directory",
        derived="`config.json` in `pipeline.model_dir`",
    )
    checkpoint_path: Path | None = setting(
        PATH,
        None,
        "the weights: a `.safetensors` or `.ckpt` file, an index, or a directory with them",
        derived="`load_checkpoint` or `checkpoint_name_or_path` of the mindformers YAML, "
        "or the directory of `config.json`",
    )
    model_dtype: str = setting(
        auto_or(dtype("float16", "float32", "bfloat16")),
        "float16",
        "reported by llm-serving's `/serving/get_serverd_model_info`; device and checkpoint decide the arithmetic "
        "(docs/models.md)",
    )
    vocab_size: int = setting(integer(1), None, "tokens in the vocabulary", derived="the model's configuration")
    pad_token_id: int = setting(integer(0), 0, "id that fills unused input")
    end_token: int = setting(
        integer(0),
        None,
        "id that ends an answer",
        derived="`eos_token_id` of the model's configuration, else 2",
    )
    seq_length: int = setting(_LENGTH, None, "longest prompt, in tokens", derived="`max_generate_length`")
    max_generate_length: int = setting(
        auto_or(integer(1)),
        None,
        "longest sequence, prompt and answer together, in tokens",
        derived="`pa_config.decode_seq_length` or the model's number of positions, whichever is lower",
    )
    prefill_batch_size: int = setting(
        largest(integer(1)), 1, "accepted without effect: `pipeline.token_budget` limits prefill per step"
    )
    decode_batch_size: int = setting(
        auto_or(largest(integer(1, 4096))),
        16,
        "sequences that run at the same time, unless `pipeline.max_rows` is set",
    )
    page_attention: bool = setting(only(True, "true", "the KV cache is always paged"), True, "the KV cache is paged")
    backend: str = setting(
        only("kbk", "kbk", "only kbk (kernel by kernel) is supported, since ge needs MindSpore Lite"),
        "kbk",
        "how MindSpore runs the model: kernel by kernel",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """Address and devices."""

    agent_ports: tuple[int, ...] = setting(
        list_of(integer(0, 65535), maximum=64),
        (16002,),
        "only its length counts: ranks of a replica, unless `pipeline.ranks` says it",
    )
    start_device_id: int = setting(integer(0, 1023), 0, "first device")
    server_ip: str = setting(TEXT, "127.0.0.1", "address to listen on, unless `pipeline.hosts` is set")
    server_port: int = setting(integer(0, 65535), 8835, "port to listen on; 0: any free one, which is printed")
    model_route: str = setting(TEXT, "llama2", "`{model}` of `/models/{model}/generate`; a single path segment")


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedAttentionConfig:
    """The KV cache."""

    num_blocks: int = setting(auto_or(integer(1)), 1024, "blocks of the KV cache")
    block_size: int = setting(auto_or(integer(1, 4096)), 16, "tokens per block; on CPU a multiple of 16")
    decode_seq_length: int = setting(
        _LENGTH,
        None,
        "longest sequence that a row of the block table has room for, in tokens",
        derived="`model_config.max_generate_length`",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerConfig:
    """The tokenizer. Its kind follows from the file's content."""

    type: str = setting(
        choice("LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast"),
        "LlamaTokenizer",
        "accepted for llm-serving's files; the kind follows from the file itself",
    )
    vocab_file: Path | None = setting(
        PATH,
        None,
        "a SentencePiece `tokenizer.model`, a Hugging Face `tokenizer.json`, or the directory of one",
        derived="`pipeline.model_dir`, or the directory of `config.json`",
    )


_LOADED_MODELS = Ignored("named the compiled models of MindSpore Lite")
_INPUTS = Ignored("chose how an agent assembled its inputs")
_BATCHING = Ignored("chose how llm-serving waited for batches; batching is continuous here")
_SHAPES = Ignored("described compiled shapes; shapes follow from max_rows and token_budget here")
_AGENTS = Ignored("was about agent processes, which do not exist here")

IGNORED: Final = MappingProxyType(
    {
        "model_path": _LOADED_MODELS,
        "basic_inputs": _INPUTS,
        "extra_inputs": _INPUTS,
        "warmup_inputs": _INPUTS,
        "model_config.model_type": _SHAPES,
        "model_config.seq_type": _SHAPES,
        "model_config.zactivate_len": _SHAPES,
        "model_config.current_index": _INPUTS,
        "model_config.batching_strategy": _BATCHING,
        "model_config.batch_waiting_time": _BATCHING,
        "model_config.decode_batch_waiting_time": _BATCHING,
        "model_config.prefill_batch_size": Ignored("limited prompts per step; pipeline.token_budget does that here"),
        "serving_config.prefill_batch_waiting_time": _BATCHING,
        "serving_config.decode_batch_waiting_time": _BATCHING,
        "serving_config.agent_ip": _AGENTS,
        "serving_config.enable_host_post_sampling": _AGENTS,
    }
)
"""Keys that are accepted and named once in the log, by dotted key."""
