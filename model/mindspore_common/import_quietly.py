"""Imports MindSpore and mindformers without their output on the terminal, or their files in the working directory.

What is silenced is below "error": warnings about deprecations inside the two packages, missing optional
models, and lines about every layer. Errors are still shown. ``GLOG_v``, ``LOG_MF_PATH`` and ``MS_OM_PATH`` keep
their meaning if they are set.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ERRORS_ONLY = "3"  # of glog's levels
_PREFIX = "ringserve-mindformers-"


def import_mindspore() -> None:
    """Later imports find it loaded. Takes 2 to 5 s the first time."""
    if "mindspore" in sys.modules:
        return
    os.environ.setdefault("GLOG_v", _ERRORS_ONLY)
    _divert_files()
    with _silence():
        import mindspore  # noqa: F401


def import_mindformers() -> None:
    """Import both packages; later imports find them loaded. Takes 4 to 10 s the first time."""
    if "mindformers" in sys.modules:
        return
    import_mindspore()
    with _silence():
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


def _divert_files() -> None:
    """mindformers opens log files when it is imported, and MindSpore writes down graphs that it can't compile, also
    when it is interrupted: both by default under the working directory."""
    directory = _scratch_directory()
    os.environ.setdefault("LOG_MF_PATH", directory)
    os.environ.setdefault("MS_OM_PATH", directory)


def _scratch_directory() -> str:
    """Removed at the end of the process; those of processes that were killed are removed now."""
    for left_behind in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it lives, is another user's, or has just been removed
            os.close(_lock(left_behind))
            shutil.rmtree(left_behind)
    directory = tempfile.mkdtemp(prefix=_PREFIX)
    with suppress(OSError):  # it is removed before it is locked: the next writer makes it again
        _lock(directory)  # until the process ends
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _lock(directory: str | Path) -> int:
    """Raises OSError while another process holds it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise PermissionError
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _quieten(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("mindformers: %(levelname)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
