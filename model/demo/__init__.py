"""The demo model's files; see README.md beside this file."""

from pathlib import Path

DEMO_DIR = Path(__file__).resolve().parent

__all__ = ["DEMO_DIR"]
