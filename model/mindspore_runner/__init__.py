"""A decoder of many families as a step executor, on CPU. Importing this does not import MindSpore; loading a runner
does."""

from model.mindspore_runner.runner import MindSporeRunner
from model.mindspore_runner.settings import MindSporeSettings

__all__ = ["MindSporeRunner", "MindSporeSettings"]
