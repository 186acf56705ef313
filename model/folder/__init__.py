"""A folder with a model, as it comes from the Hugging Face Hub: which of its files count, and why it can't be served
where it can't. Nothing here reads a weight."""

from model.folder.location import ModelFolder, locate_model
from model.folder.pointers import require_content
from model.folder.refusals import ORIGINAL_WEIGHTS, refuse_multimodal, refuse_quantized
from model.folder.tokenizer_files import find_tokenizer
from model.folder.weight_files import weight_files

__all__ = [
    "ORIGINAL_WEIGHTS",
    "ModelFolder",
    "find_tokenizer",
    "locate_model",
    "refuse_multimodal",
    "refuse_quantized",
    "require_content",
    "weight_files",
]
