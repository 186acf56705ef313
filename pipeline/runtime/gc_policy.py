"""Python's cyclic garbage collector, kept off the step path.

Objects made at start-up are frozen: they live as long as the process, and are not traversed. Stages on the step path
then collect nothing at all while they serve: their steps leave no cycles behind
(tests/pipeline/runtime/test_gc_policy.py), and reference counts free everything else at once. They collect between
two generations. Requests and connections do leave cycles; in the front the collector stays on, with little to do.
"""

from __future__ import annotations

import gc

from pipeline.wire.topology import Role


def freeze_gc(role: Role) -> None:
    """Call it when everything expensive has been loaded."""
    gc.collect()
    gc.freeze()
    if role.critical:
        gc.disable()
