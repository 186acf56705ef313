"""The parent of all stages: starts them, gives them rings, watches over them, ends them."""

from pipeline.launcher.supervisor import Supervisor, say

__all__ = ["Supervisor", "say"]
