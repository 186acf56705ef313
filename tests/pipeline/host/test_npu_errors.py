"""Error codes in texts as MindSpore, CANN and HCCL write them."""

from __future__ import annotations

import pytest

from pipeline.host.npu_errors import MODULES, RUNTIME, explain


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("aclrtSynchronizeStream failed, error code is 507015", ["507015"]),
        ("RuntimeError: Call aclrtSetDevice failed, ret[507033]. Please check", ["507033"]),
        ("rtStreamCreate execute failed, ErrCode=207008, reason=[driver error:no stream resource]", ["207008"]),
        (
            "EI0002: The wait execution times out.\nEI0006: Getting socket",
            ["EI0002", "EI0006"],
        ),
        ("EL0004: Failed to allocate memory requested by GE module. E19999: Inner Error!", ["EL0004"]),
        ("E39999: Inner Error!\nE19999: Inner Error!", ["E39999"]),
        ("result = 507018, then error code: 507018 again", ["507018"]),
        ("allocated 507015 bytes at 207008", []),
        ("ZE00021 and EXE00012 and 1507015", []),
        ("", []),
    ],
)
def test_codes_are_found_once_and_in_order(text, codes):
    assert [line.partition(":")[0] for line in explain(text)] == codes


def test_every_code_says_what_happened_and_what_to_do():
    for code in (*RUNTIME, *MODULES):
        (line,) = explain(f"error code is {code}")
        assert line.startswith(f"{code}: ")
        assert "; " in line
