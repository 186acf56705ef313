"""An emulated device: takes the time that a device would take, and answers deterministically.

For measurements and tests of the server rather than the model. In place of keys and values the
cache holds one running hash per KV slot: of the token, its position, and the hash of the position before it,
found through the block table. A row's logits follow from the hashes of its whole context, read through the
block table as attention would. A wrong block table, slot mapping, position or sampled position, a block freed too
early, or a prompt split wrongly therefore gives another text than `expected_tokens` says.
"""

from .reference import expected_logits, expected_next_token, expected_tokens
from .runner import EmulatedRunner
from .settings import CostModel, EmulatedSettings

__all__ = [
    "CostModel",
    "EmulatedRunner",
    "EmulatedSettings",
    "expected_logits",
    "expected_next_token",
    "expected_tokens",
]
