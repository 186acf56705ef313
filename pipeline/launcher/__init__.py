"""The parent of all stages: starts them, gives them rings, watches over them, ends them."""

from pipeline.launcher.listeners import PortInUseError
from pipeline.launcher.supervisor import Supervisor

__all__ = ["PortInUseError", "Supervisor"]
