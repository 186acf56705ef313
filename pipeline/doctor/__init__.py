"""Checks a host for a configuration: what is fine, what costs time, what can't work, and the exact fix."""

from pipeline.doctor.examine import examine
from pipeline.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
