"""The parent of all stages: starts them, gives them rings, supervises them, stops them."""

from pipeline.launcher.supervisor import Supervisor, report

__all__ = ["Supervisor", "report"]
