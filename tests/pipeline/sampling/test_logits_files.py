"""Which logits are saved, under which names."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.sampling.logits_files import LogitsFiles, ids_text


def test_names_are_llm_servings():
    assert ids_text([1735, 3439, 13, 518, 29871]) == "1735.03439.013.0518."
    assert len(ids_text([1, 2, 3, 4, 5, 6, 7, 8])) == 20
    assert ids_text([7]) == "7"


@pytest.fixture
def files(tmp_path):
    return LogitsFiles(tmp_path / "logits", max_rows=4)


def int32(*values):
    return np.array(values, np.int32)


def test_rows_at_a_multiple_of_a_hundred_are_saved_as_they_were_before_sampling(files, tmp_path):
    logits = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    before = logits.copy()
    for row in range(4):
        files.admit(row, int32(row, 5, 6, 7, 8, 9, 10, 11), int32())
    rows = int32(2, 0, -1, 3)  # batch order is not row order; the third is not sampled
    files.keep(rows, int32(100, 101, 200, 300), logits)
    logits[:] = 0  # penalties and biases are written in place
    files.write(rows, int32(1, 1, 1, 1))
    saved = {path.name.split("_", 1)[1]: np.load(path) for path in (tmp_path / "logits").iterdir()}
    assert saved.keys() == {"2.05.06.07.08.09.010_100.npy", "3.05.06.07.08.09.010_300.npy"}
    assert np.array_equal(saved["2.05.06.07.08.09.010_100.npy"], before[:1])
    assert np.array_equal(saved["3.05.06.07.08.09.010_300.npy"], before[3:])
    assert all(array.dtype == np.float32 and array.shape == (1, 50) for array in saved.values())


def test_a_short_prompts_name_goes_on_with_its_answer(files, tmp_path):
    files.admit(1, int32(1, 70), int32())
    for position in range(2, 101):
        files.keep(int32(1), int32(position), np.zeros((1, 9), np.float32))
        files.write(int32(1), int32(300 + position))
    (path,) = (tmp_path / "logits").iterdir()
    assert path.name.endswith("_1.070.0302.0303.0304_100.npy")


def test_a_resumed_sequence_has_the_same_name(files, tmp_path):
    files.admit(0, int32(1, 70), int32(302, 303, 304))
    files.keep(int32(0), int32(100), np.zeros((1, 9), np.float32))
    files.write(int32(0), int32(5))
    (path,) = (tmp_path / "logits").iterdir()
    assert path.name.endswith("_1.070.0302.0303.0304_100.npy")


def test_names_of_the_same_ids_differ_and_are_in_order(files, tmp_path):
    for value in range(50):
        files.keep(int32(0), int32(100), np.full((1, 3), value, np.float32))
    files.write(int32(0), int32(5))
    paths = sorted((tmp_path / "logits").iterdir(), key=lambda path: float(path.name.split("_")[0].split(".")[1]))
    assert len(paths) == 50
    seconds = {path.name.split(".")[0] for path in paths}
    if len(seconds) == 1:
        assert [float(np.load(path)[0, 0]) for path in paths] == list(range(50))


def test_a_directory_that_has_gone_stops_saving_not_serving(files, tmp_path, caplog):
    (tmp_path / "logits").rmdir()
    for _ in range(3):
        files.keep(int32(0), int32(100), np.zeros((1, 9), np.float32))
        files.write(int32(0), int32(5))
    assert len([record for record in caplog.records if "no more logits are saved" in record.message]) == 1
