"""The parent of all stages: starts them, gives them rings, supervises them, stops them."""

from pipeline.launcher.announce import report
from pipeline.launcher.supervisor import Supervisor

__all__ = ["Supervisor", "report"]
