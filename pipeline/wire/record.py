"""Records of the rings: frozen types, each its own form in msgpack.

They are written and read by this program only, and are bounded, since sizes were checked where they came from
outside: one that does not parse is a bug, not an input.
"""

from __future__ import annotations

import msgspec
import numpy as np

from pipeline.wire.step import Int32

_ID_BYTES = 4
_ENCODER = msgspec.msgpack.Encoder()


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An array of its fields. Token ids are bytes, int32 each: they are copied, not looked at one by one."""

    def pack(self) -> bytes:
        """Raises UnicodeEncodeError for a text that has no UTF-8 form."""
        return _ENCODER.encode(self)


def ids_of(packed: bytes) -> Int32:
    """A view of packed token ids."""
    return np.frombuffer(packed, np.int32)


def count_ids(packed: bytes) -> int:
    return len(packed) // _ID_BYTES
