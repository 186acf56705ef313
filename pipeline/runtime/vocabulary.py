"""The vocabulary that fronts share: packed once, by the process that checks the tokenizer, and handed over as a
descriptor of anonymous memory. So no front loads a tokenizer, and neither does one that is started anew."""

from __future__ import annotations

import fcntl
import mmap
import os

from model.tokenizer import Tokenizer, TokenTable, fingerprint, pack_vocabulary

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class VocabularyFile:
    """Made empty, for another process to fill; from then on nobody can change it."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.fd = os.memfd_create("ringserve-vocabulary", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(self.fd, 0o600)

    def fill(self, tokenizer: Tokenizer) -> None:
        """Once. Raises OSError where there is no memory for it."""
        rest = memoryview(pack_vocabulary(tokenizer))
        while rest:
            rest = rest[os.write(self.fd, rest) :]
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)

    def close(self) -> None:
        os.close(self.fd)


def vocabulary_hash(fd: int) -> str:
    """Of all that fronts know of the tokenizer, but where its files are. Of one that can be mapped."""
    return fingerprint(_mapped(fd))


def map_vocabulary(fd: int) -> TokenTable:
    """What a `VocabularyFile` holds. Raises TokenizerError for one that is empty or damaged."""
    return TokenTable(_mapped(fd))


def _mapped(fd: int) -> memoryview:
    size = os.fstat(fd).st_size
    return memoryview(mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) if size else b"")
