"""The block manager: which physical KV blocks a sequence owns, and which full blocks can be shared.

A full block is identified by a hash chain: the hash of its tokens and of the block before it. Prompts that share a
prefix share its blocks, unless they have different adapters: each adapter's chains begin at a root of its own. A
block without references keeps its content until it is needed for another; the least recently used goes first. Block 0
is never allocated: padding rows point to it.

The hash is BLAKE2b, keyed per process: no client can craft a prompt that collides with another client's.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

import numpy as np
from numpy.typing import NDArray

Digest = bytes
ROOT: Digest = b""
"""Where chains of the base model's own weights begin."""


@dataclass(slots=True)
class BlockStats:
    """Counters since the start. `hits` of `queries` admitted prompt tokens were found in cached blocks."""

    queries: int = 0
    hits: int = 0


class BlockManager:
    """Allocates KV blocks, counts references, remembers full blocks.

    Nothing here blocks or raises when memory is short: `allocate` returns None, and the scheduler decides.
    """

    def __init__(self, num_blocks: int, block_size: int, *, prefix_cache: bool = True) -> None:
        if num_blocks < 2 or block_size < 1:
            raise ValueError(f"at least 2 blocks of at least 1 token expected, not {num_blocks} of {block_size}")
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.stats = BlockStats()
        self.releases = 0  # how often a block has become free: what did not fit then may fit now
        self._prefix_cache = prefix_cache
        self._key = os.urandom(32)
        self._references = np.zeros(num_blocks, np.int32)
        self._digests: list[Digest | None] = [None] * num_blocks
        self._by_digest: dict[Digest, int] = {}
        self._empty = list(range(num_blocks - 1, 0, -1))  # without cached content; block 0 is for padding
        self._idle: OrderedDict[int, None] = OrderedDict()  # cached, unreferenced; oldest first

    @property
    def free(self) -> int:
        """Blocks that can be allocated now, cached ones included."""
        return len(self._empty) + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks that a living sequence references."""
        return self.num_blocks - 1 - self.free

    @property
    def cached(self) -> int:
        """Full blocks that could be shared, referenced or not."""
        return len(self._by_digest)

    def allocate(self) -> int | None:
        """An empty block with one reference, or None when every block is in use."""
        if self._empty:
            block = self._empty.pop()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
        else:
            return None
        self._references[block] = 1
        return block

    def release(self, blocks: list[int]) -> None:
        """Drop one reference of each block. The last blocks of a sequence are evicted before its first ones, since
        a prefix is more likely to be shared than what follows it."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block]:
                continue
            self.releases += 1
            if self._digests[block] is None:
                self._empty.append(block)
            else:
                self._idle[block] = None

    def name(self, tokens: NDArray[np.int32], digests: list[Digest], root: Digest = ROOT) -> None:
        """Extend `digests`, the hashes of the first full blocks of `tokens`, to all of them. A block's hash depends
        on its tokens, all before them, and `root`. A long prompt takes milliseconds: any thread may do it.
        """
        if not self._prefix_cache:
            return
        size, previous = self.block_size, digests[-1] if digests else root
        for start in range(len(digests) * size, len(tokens) - size + 1, size):
            block = tokens[start : start + size].tobytes()
            previous = blake2b(previous + block, key=self._key, digest_size=16).digest()
            digests.append(previous)

    def is_cached(self, digest: Digest) -> bool:
        return digest in self._by_digest

    def match(self, digests: Sequence[Digest], most: int) -> list[int]:
        """Cached blocks with the first `most` of these hashes, up to the first that is missing; each gets one more
        reference."""
        blocks: list[int] = []
        for digest in islice(digests, most):
            block = self._by_digest.get(digest)
            if block is None:
                break
            self._idle.pop(block, None)
            self._references[block] += 1
            blocks.append(block)
        return blocks

    def seal(self, block: int, digest: Digest) -> None:
        """The block is full, its content is on the device, and it may be shared from now on under this hash."""
        if self._prefix_cache and digest not in self._by_digest and self._digests[block] is None:
            self._digests[block] = digest
            self._by_digest[digest] = block

    def _forget(self, block: int) -> None:
        digest = self._digests[block]
        self._digests[block] = None
        if digest is not None:
            del self._by_digest[digest]
