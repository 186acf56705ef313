"""Settings of an openvino runner, and its buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from model.errors import ConfigurationError
from model.layout import make_buckets
from model.mindspore_common.settings import GraphSettings, require_choice
from model.openvino.int8_products import can_multiply
from model.openvino.requirements import BLOCK_SIZE
from model.runner import Bucket

WeightDtype = Literal["f32", "bf16", "int8"]
KvDtype = Literal["f32", "f16", "bf16", "u8"]
_CACHES: dict[str, tuple[KvDtype, ...]] = {"f32": ("f32", "f16", "u8"), "bf16": ("bf16", "u8")}
"""By what is computed in, which caches attention can read."""
_EXACT_ROWS = 64
"""Up to here there is a bucket for every number of decode rows; with drafts, for every number of tokens."""


@dataclass(frozen=True, slots=True)
class OpenVinoSettings(GraphSettings):
    """Settings of an `OpenVinoRunner`. ``config_path``: a Hugging Face ``config.json``, or its directory;
    ``compile_cache_dir``: where int8 weights are kept between runs."""

    block_size: int = BLOCK_SIZE
    weight_dtype: WeightDtype | None = None
    """None: as the checkpoint has them, computed in float32; ``bf16`` and ``int8`` are less exact."""
    kv_dtype: KvDtype | None = None
    """Of the KV cache; None: what attention computes in."""
    own_products: bool = True
    """False: int8 matrices are multiplied by OpenVINO also where kernels of our own could."""

    def __post_init__(self) -> None:
        GraphSettings.__post_init__(self)  # slots=True makes another class, which super() does not know
        if self.device != "CPU":
            raise ConfigurationError(f"device is {self.device!r}; the openvino engine computes on CPU only")
        if self.block_size != BLOCK_SIZE:
            raise ConfigurationError(f"block_size is {self.block_size}; the openvino engine knows {BLOCK_SIZE} only")
        if self.adapters:
            raise ConfigurationError(
                "adapters: the openvino engine has none beside a model; use pipeline.runner.kind: mindspore, or "
                "merge one (merged_adapter)"
            )
        if self.weight_dtype is not None:
            require_choice("weight_dtype", self.weight_dtype, get_args(WeightDtype))
        if self.kv_dtype is not None and self.kv_dtype not in (choices := _CACHES[self.inference_dtype]):
            raise ConfigurationError(
                f"kv_dtype is {self.kv_dtype!r}; with weight_dtype {self.weight_dtype or 'left out'} it must be one "
                f"of {', '.join(choices)}"
            )

    def effective_buckets(self) -> tuple[Bucket, ...]:
        """Nothing is compiled for a bucket, and a step computes its own tokens only, so they differ in rows, which is
        what padding costs: a position that nobody samples is multiplied with the whole vocabulary."""
        if self.buckets is not None:
            return GraphSettings.effective_buckets(self)
        exact = {Bucket(rows, rows) for rows in range(1, min(self.max_rows, _EXACT_ROWS) + 1)}
        exact |= {Bucket(tokens, self.max_rows, tokens) for tokens in range(self.max_rows + 1, self.samples + 1)}
        decode = {Bucket(it.rows, it.rows) for it in make_buckets(self.max_rows, self.max_rows, 2)}
        mixed = {Bucket(self.token_budget, it.rows) for it in decode}
        sizes = {it.samples for it in make_buckets(max(self.scored_samples, 1), 1, 2) if it.samples > self.max_rows}
        scored = {Bucket(self.token_budget, self.max_rows, samples) for samples in sizes}
        return tuple(sorted(exact | decode | mixed | scored))

    @property
    def inference_dtype(self) -> Literal["f32", "bf16"]:
        """What is computed in. int8 weights with bfloat16 would be widened first, at half of the speed of one row."""
        return "bf16" if self.weight_dtype == "bf16" else "f32"

    @property
    def packs_int8(self) -> bool:
        """Matrices are stored for kernels of our own, which read them where they are."""
        return self.weight_dtype == "int8" and self.own_products and can_multiply()

    @property
    def rounds(self) -> bool:
        """Something is rounded on the way, so that what differs by a bit may differ by much more behind."""
        return self.weight_dtype in {"bf16", "int8"} or self.kv_dtype not in {None, "f32"}
