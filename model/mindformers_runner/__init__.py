"""mindformers' networks as step executors. Importing this does not import MindSpore; loading a runner does."""

from model.mindformers_runner.runner import MindFormersRunner
from model.mindformers_runner.settings import MindFormersSettings
from model.mindspore_common.settings import default_buckets

__all__ = ["MindFormersRunner", "MindFormersSettings", "default_buckets"]
