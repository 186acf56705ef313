"""The floor of coverage: which modules are complained of."""

from __future__ import annotations

from scripts.verify.coverage.floor import complaints


def test_modules_below_the_floor_and_needless_exceptions():
    percent = {"a.py": 79.9, "b.py": 80.0, "c.py": 10.0, "d.py": 90.0}
    found = list(complaints(percent, {"c.py": "Ascend", "d.py": "Ascend", "e.py": "gone"}))
    assert [line.partition(":")[0] for line in found] == ["a.py", "d.py", "e.py"]
