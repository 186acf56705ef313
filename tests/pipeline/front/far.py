"""The rings of a replica's generation, and the other ends of them: preprocess and sampling are the test."""

import os

import ipc
from pipeline.front.settings import FrontRings
from pipeline.wire.request import unpack_message


class FarRings:
    def __init__(self, replica=0, capacity=1 << 16):
        names = ("requests", "replies", "deltas")
        self.rings = {name: ipc.ByteRing.create(f"{name}_{replica}", capacity=capacity) for name in names}
        self.requests = self.rings["requests"].consumer()
        self.replies = self.rings["replies"].producer()
        self.deltas = self.rings["deltas"].producer()

    @property
    def handles(self):
        """Of descriptors that the front can take over: it is this process, too."""
        texts = {name: ",".join(str(os.dup(fd)) for fd in ring.handle.fds) for name, ring in self.rings.items()}
        return FrontRings(**{name: ipc.RingHandle.from_text(text) for name, text in texts.items()})

    def next_message(self):
        """None: there is none."""
        record = self.requests.try_read()
        if record is None:
            return None
        with record:
            return unpack_message(bytes(record))

    def close(self):
        for ring in self.rings.values():
            ring.__exit__()
