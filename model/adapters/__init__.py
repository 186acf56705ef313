"""LoRA adapters as PEFT saves them, for the decoder that a `Spec` describes. Knows no engine.

`read_adapter` reads a folder's configuration and headers: what does not fit is known before any weight is read.
"""

from model.adapters.adapter import Adapter, Change, adapter_files
from model.adapters.reading import read_adapter
from model.adapters.weights import model_weights

__all__ = ["Adapter", "Change", "adapter_files", "model_weights", "read_adapter"]
