"""Imports MindSpore and mindformers without chatter on the user's terminal or files in the user's directory.

What is silenced is below "error": warnings about deprecations inside the two packages, missing optional
models, and lines about every layer. Errors still come through. Whoever sets ``GLOG_v`` or ``LOG_MF_PATH``
gets what these ask for.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ERRORS_ONLY = "3"  # of glog's levels


def import_mindformers() -> None:
    """Import both packages; later imports find them loaded. Takes 4 to 10 s the first time."""
    if "mindformers" in sys.modules:
        return
    os.environ.setdefault("GLOG_v", _ERRORS_ONLY)
    with _log_directory(), _silence():
        import mindformers  # noqa: F401

        # mindformers.tools binds the module's name to a class in it
        _quieten(sys.modules["mindformers.tools.logger"].get_logger())


@contextmanager
def _silence() -> Iterator[None]:
    """Neither Python warnings nor log records below "error", only while importing.

    mindformers replaces `warnings.showwarning` for the whole process; leaving the context puts it back.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _log_directory() -> Iterator[None]:
    """mindformers opens log files when it is imported, by default under the working directory."""
    if "LOG_MF_PATH" in os.environ:
        yield
        return
    directory = tempfile.mkdtemp(prefix="ringserve-mindformers-")
    os.environ["LOG_MF_PATH"] = directory  # stays: the logger's name is made of it
    try:
        yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _quieten(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("mindformers: %(levelname)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
