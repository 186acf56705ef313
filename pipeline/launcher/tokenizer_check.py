"""Whether the tokenizer, its chat template and the defaults of sampling can be read, before any stage is started.

In a process of its own: the launcher lives as long as the server and must not keep a large vocabulary in memory. What
fronts need of the tokenizer is packed there, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import Never, Self

from model.errors import ModelError, TokenizerError
from pipeline.config import Configuration
from pipeline.runtime.tokenizer import open_tokenizer, sampling_defaults
from pipeline.runtime.vocabulary import VocabularyFile

_NO_TEMPLATE = "the model has no chat template, so chats are refused; pipeline.chat_template: a file with one"


class TokenizerCheck:
    """Runs while other things are prepared; `require` waits for it. A context manager: its process ends with it."""

    def __init__(self, config: Configuration, vocabulary: VocabularyFile | None = None) -> None:
        """``vocabulary`` is full when `require` has returned."""
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _look(config, vocabulary, write)
        os.close(write)

    def require(self) -> list[str]:
        """Remarks for the operator. Raises TokenizerError, also for a process that died of it: libraries abort where
        memory is too little."""
        with open(self._read, "rb", closefd=False) as pipe:
            report = pipe.read()
        if not report:
            raise TokenizerError("the process that loads the tokenizer died, probably for lack of memory")
        found = json.loads(report)
        if "problem" in found:
            raise TokenizerError(found["problem"])
        return list(found["remarks"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _look(config: Configuration, vocabulary: VocabularyFile | None, write: int) -> Never:
    """Ctrl-C reaches this process, too, and ends it without a word."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    found: dict[str, object] = {}
    try:
        tokenizer = open_tokenizer(config, config.model_config.vocab_size)
        sampling_defaults(config)
        if vocabulary is not None:
            vocabulary.fill(tokenizer)
        found["remarks"] = [] if tokenizer.has_chat_template else [_NO_TEMPLATE]
    except ModelError as error:
        found["problem"] = str(error)
    except BaseException as error:  # noqa: BLE001 - this process has nobody else to report to
        found["problem"] = f"the tokenizer can't be loaded: {error!r}"
    os.write(write, json.dumps(found).encode())
    os._exit(0)
