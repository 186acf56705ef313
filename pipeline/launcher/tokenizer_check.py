"""Whether the tokenizer, its chat template and the defaults of sampling can be read, before any stage is started.

In a process of its own: the launcher lives as long as the server and must not keep a large vocabulary in memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Never, Self

from model.errors import ModelError, TokenizerError
from pipeline.config import Configuration
from pipeline.runtime.tokenizer import open_tokenizer, sampling_defaults


class TokenizerCheck:
    """Runs while other things are prepared; `require` waits for it. A context manager: its process ends with it."""

    def __init__(self, config: Configuration) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _look(config, write)
        os.close(write)

    def require(self) -> None:
        """Raises TokenizerError. A process that is killed has found nothing: stages will find the same."""
        with open(self._read, "rb", closefd=False) as pipe:
            problem = pipe.read().decode()
        if problem:
            raise TokenizerError(problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _look(config: Configuration, write: int) -> Never:
    """Ctrl-C reaches this process, too, and ends it without a word."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    try:
        open_tokenizer(config, config.model_config.vocab_size)
        sampling_defaults(config)
    except ModelError as error:
        os.write(write, str(error).encode()[: 1 << 15])
    except BaseException as error:  # noqa: BLE001 - this process has nobody else to report to
        os.write(write, f"the tokenizer can't be loaded: {error!r}".encode()[: 1 << 15])
    os._exit(0)
