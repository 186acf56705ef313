"""The families' checkpoints, as tests know them."""

from scripts.tools.family_checkpoints import Checkpoint, load, older

__all__ = ["Checkpoint", "load", "older"]
