"""Imports OpenVINO without the part that reports its use over the network and leaves files in the home directory."""

from __future__ import annotations

import sys


def import_openvino() -> None:
    """Later imports find it loaded; takes 0.1 s. Its ``tools`` convert models of others, which nothing here needs;
    importing them would send a report."""
    if "openvino" in sys.modules:
        return
    sys.modules["openvino.tools"] = None  # type: ignore[assignment]  # makes the import fail, which it expects
    try:
        import openvino  # noqa: F401
    finally:
        del sys.modules["openvino.tools"]
