"""The HTTP process: validation, streaming, metrics. It knows the rings and the statistics page, not models."""

from pipeline.front.server import bind, run_front
from pipeline.front.settings import FrontRings, FrontSettings

__all__ = ["FrontRings", "FrontSettings", "bind", "run_front"]
