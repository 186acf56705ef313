"""A decoder's graph as OpenVINO's CPU plugin runs it."""

from __future__ import annotations

from typing import Any

from openvino import CompiledModel, Core

from model.families import Spec
from model.openvino.decoder import build_decoder
from model.openvino.settings import OpenVinoSettings
from model.openvino.weight_file import WeightFile
from model.openvino.weights import Weights

_DYNAMIC_QUANTIZATION_GROUP = 64
"""Columns of activations that share a factor where they meet int8 weights: with 32 one row takes 10 % longer, with
256 the logits' error is 15 % larger."""


def compile_decoder(spec: Spec, settings: OpenVinoSettings, max_length: int, file: WeightFile) -> CompiledModel:
    """For all shapes. ``file`` must outlive it."""
    weights = Weights(file.arrays, narrow=settings.inference_dtype == "bf16")
    return Core().compile_model(build_decoder(spec, max_length, weights), "CPU", properties(settings))


def properties(settings: OpenVinoSettings) -> dict[str, Any]:
    """Precisions are all said: the plugin's defaults are bfloat16, and 8 bits for the KV cache."""
    threads = {} if settings.threads is None else {"INFERENCE_NUM_THREADS": settings.threads}
    return {
        "INFERENCE_PRECISION_HINT": settings.inference_dtype,
        "KV_CACHE_PRECISION": settings.kv_dtype or settings.inference_dtype,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _DYNAMIC_QUANTIZATION_GROUP if settings.weight_dtype == "int8" else 0,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # CPUs are shared with the other stages
        # Small shares of work that threads take as they come to them: with one share each, which is the default, all
        # wait for the thread whose CPU another stage has just taken.
        "TBB_PARTITIONER": "AUTO",
        **threads,
    }
