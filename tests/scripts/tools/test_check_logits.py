"""scripts/tools/check_logits.py, run as a process."""

import subprocess
import sys

import numpy as np
import pytest

SCRIPT = "scripts.tools.check_logits"
IDS = "1735.03439.013.0518"


@pytest.fixture
def directories(tmp_path):
    base, new = tmp_path / "base", tmp_path / "new"
    base.mkdir()
    new.mkdir()
    return base, new


def save(directory, time, position, array, ids=IDS):
    np.save(directory / f"{time}_{ids}_{position}.npy", np.asarray(array, np.float32))


def run(base, new, *more):
    command = [sys.executable, "-m", SCRIPT, "--base", str(base), "--new", str(new), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def logits(seed, shape=(2, 50)):
    return np.random.default_rng(seed).normal(0, 5, shape).astype(np.float32)


def test_runs_that_agree_within_the_tolerance(directories):
    base, new = directories
    for position in (100, 200):
        for time in range(3):
            x = logits(position + time)
            save(base, f"1700000000.{time}", position, x)
            save(new, f"18{time}", position, x + np.float32(0.0049))
    result = run(base, new)
    assert result.returncode == 0, result.stdout
    assert "compared 6 pairs" in result.stdout
    assert "worst difference 0.0049" in result.stdout
    assert "all logits agree" in result.stdout


def test_one_wrong_element_is_named_with_file_position_row_and_token(directories):
    base, new = directories
    for position in (100, 200):
        save(base, 5, position, logits(position))
        x = logits(position)
        if position == 200:
            x[1, 33] += 0.25
            x[0, 2] += 0.01
        save(new, 6, position, x)
    result = run(base, new)
    assert result.returncode == 1
    [line] = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert f"5_{IDS}_200.npy against 6_{IDS}_200.npy: position 200, row 1, token 33" in line
    assert "difference 0.25" in line
    assert "2 elements" in line
    assert "1 failures" in result.stdout


def test_a_group_is_sorted_by_time_as_a_number(directories):
    base, new = directories
    for time, seed in (("9.5", 1), ("10.25", 2), ("100", 3)):
        save(base, time, 100, logits(seed))
    for time, seed in (("1700000000.9", 1), ("1700000001", 2), ("1700000001.05", 3)):
        save(new, time, 100, logits(seed))
    assert run(base, new).returncode == 0


def test_other_ids_and_positions_are_other_groups(directories):
    base, new = directories
    save(base, 1, 100, logits(1), ids="1")
    save(base, 2, 100, logits(2), ids="1.05")
    save(new, 3, 100, logits(1), ids="1")
    save(new, 1, 100, logits(2), ids="1.05")
    assert run(base, new).returncode == 0


@pytest.mark.parametrize("missing_in", ["base", "new"])
def test_a_file_without_counterpart_fails(directories, missing_in):
    base, new = directories
    for time in (1, 2):
        save(base, time, 100, logits(time))
        save(new, time, 100, logits(time))
    extra = base if missing_in == "new" else new
    save(extra, 3, 100, logits(3))
    save(extra, 4, 300, logits(3))
    result = run(base, new)
    assert result.returncode == 1
    assert f"3_{IDS}_100.npy: no counterpart in the {missing_in} run" in result.stdout
    assert f"4_{IDS}_300.npy: no counterpart in the {missing_in} run" in result.stdout
    assert "compared 2 pairs" in result.stdout


def test_an_empty_new_run_fails(directories):
    base, new = directories
    save(base, 1, 100, logits(1))
    assert run(base, new).returncode == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_fails_unless_both_are_the_same_infinity(directories, bad):
    base, new = directories
    x = logits(1)
    save(base, 1, 100, x)
    x[1, 7] = bad
    save(new, 1, 100, x)
    result = run(base, new)
    assert result.returncode == 1
    assert "row 1, token 7" in result.stdout
    save(base, 1, 100, x)
    assert run(base, new).returncode == (0 if np.isinf(bad) else 1)


def test_another_shape_fails(directories):
    base, new = directories
    save(base, 1, 100, logits(1))
    save(new, 1, 100, logits(1, (1, 50)))
    result = run(base, new)
    assert result.returncode == 1
    assert "shape [1, 50], expected [2, 50]" in result.stdout


def test_many_failures_are_counted_but_not_all_listed(directories):
    base, new = directories
    for time in range(30):
        save(base, time, 100, logits(time))
        save(new, time, 100, logits(time) + 1)
    result = run(base, new)
    assert result.returncode == 1
    assert "and 10 more" in result.stdout
    assert "30 failures" in result.stdout


def test_the_tolerance_can_be_set(directories):
    base, new = directories
    save(base, 1, 100, logits(1))
    save(new, 1, 100, logits(1) + np.float32(0.1))
    assert run(base, new).returncode == 1
    assert run(base, new, "--atol", "0.2").returncode == 0


def unreadable_name(base, new):
    save(new, "yesterday", 100, logits(1))
    return "yesterday"


def unreadable_truncated(base, new):
    path = new / f"1_{IDS}_100.npy"
    path.write_bytes(path.read_bytes()[:-40])
    return "cannot be read"


def unreadable_empty(base, new):
    (new / f"1_{IDS}_100.npy").write_bytes(b"")
    return "cannot be read"


def unreadable_pickle(base, new):
    np.save(new / f"1_{IDS}_100.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return "cannot be read"


def unreadable_dtype(base, new):
    np.save(new / f"1_{IDS}_100.npy", np.zeros((2, 50), np.int64))
    return "int64[2, 50], expected float32"


def unreadable_no_base(base, new):
    for path in base.iterdir():
        path.unlink()
    return "holds no .npy files"


@pytest.mark.parametrize(
    "spoil",
    [
        unreadable_name,
        unreadable_truncated,
        unreadable_empty,
        unreadable_pickle,
        unreadable_dtype,
        unreadable_no_base,
    ],
)
def test_unreadable_input_is_exit_code_2_with_a_message(directories, spoil):
    base, new = directories
    save(base, 1, 100, logits(1))
    save(new, 1, 100, logits(1))
    message = spoil(base, new)
    result = run(base, new)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_usage_is_exit_code_2(directories):
    base, new = directories
    assert run(base / "nowhere", new).returncode == 2
    assert run(base, new, "--atol", "-1").returncode == 2
    assert run(base, new, "--atol", "nan").returncode == 2
    assert subprocess.run([sys.executable, "-m", SCRIPT], capture_output=True, check=False).returncode == 2
