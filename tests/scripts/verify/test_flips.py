"""Flip rates of a device that has none."""

from model.demo import DEMO_DIR
from scripts.verify.flips import CONDITIONS, ENGINES, MODES, WHOLE, count_flips, make_bodies


def test_streams_differ_and_half_of_them_are_drawn():
    bodies = make_bodies(1000, 8, "deterministic")
    assert len({body["prompt"] for body in bodies}) == 1000
    assert sum(body["temperature"] > 0 for body in bodies) == 500
    assert all(body["deterministic"] for body in bodies)
    assert not any(body["deterministic"] for body in make_bodies(4, 8))


def test_conditions_that_share_a_server_are_counted_by_mode():
    assert CONDITIONS == ("batch", "resumption", "alone", "prefix", "chunking", "preemption", "speculation")
    modes = {mode: make_bodies(12, 8, mode) for mode in MODES}
    found = count_flips(DEMO_DIR, "emulated", (*WHOLE, *ENGINES["emulated"]), modes, ("batch", "alone", "chunking"))
    assert found == {mode: {"batch": 0, "alone": 0, "chunking": 0} for mode in MODES}
