"""What errors say, also behind a pipe to another process."""

from __future__ import annotations

import pickle

import pytest

import ipc


@pytest.mark.parametrize(("label", "who"), [("sampling", "producer 'sampling'"), ("", "producer")])
def test_a_dead_peer_is_named(label, who):
    error = ipc.PeerDied("deltas", "producer", label, 12)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert str(one) == f"ring 'deltas': its {who} (pid 12) is dead"
        assert (one.ring, one.role, one.label, one.pid) == ("deltas", "producer", label, 12)


def test_a_timeout_is_one_of_python_s_too():
    assert issubclass(ipc.RingTimeout, TimeoutError)
    assert ipc.RingTimeout("x").written == 0
