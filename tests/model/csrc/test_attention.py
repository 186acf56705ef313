"""The operators compile without a warning, and compute the same, with each compiler and for each processor at hand.
Where a compiler or the emulator is missing, its case is skipped."""

from __future__ import annotations

import pytest

from scripts.verify.operators import AARCH64, CLANG, SANITIZED

BUILDS = {**CLANG, **{name: build for name, build in SANITIZED.items() if name != "threads"}, **AARCH64}


@pytest.mark.parametrize("name", BUILDS)
def test_build_and_compare(name, tmp_path):
    build = BUILDS[name]
    if missing := build.missing():
        pytest.skip(f"{' and '.join(missing)} not installed")
    result = build.run(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "worst error" in result.stdout or "no AVX512_VNNI" in result.stdout
