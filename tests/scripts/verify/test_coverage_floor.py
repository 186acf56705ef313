"""The floor of coverage: which modules are complained of."""

from __future__ import annotations

import json

from scripts.verify.coverage_floor import complaints, covered


def test_modules_below_the_floor_and_needless_exceptions():
    percent = {"a.py": 79.9, "b.py": 80.0, "c.py": 10.0, "d.py": 90.0}
    found = list(complaints(percent, {"c.py": "Ascend", "d.py": "Ascend", "e.py": "gone"}))
    assert [line.partition(":")[0] for line in found] == ["a.py", "d.py", "e.py"]


def test_modules_without_lines_do_not_count():
    summary = {
        "a.py": {"num_statements": 2, "percent_covered": 50.0},
        "b.py": {"num_statements": 0, "percent_covered": 100.0},
    }
    report = json.dumps({"files": {name: {"summary": values} for name, values in summary.items()}})
    assert covered(report) == {"a.py": 50.0}
