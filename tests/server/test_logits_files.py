"""`pipeline.save_logits_dir`: what a real server writes, against the logits that the device is known to give."""

from __future__ import annotations

import concurrent.futures
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.demo import DEMO_DIR
from pipeline.sampling.logits_files import LogitsFiles, ids_text
from scripts.tools.check_logits import FILE_NAME, check
from tests.server.test_server import CONFIG, Launched

VOCAB = 2048
PROMPTS = {"a": 210, "What is a ring?": 230, "ring buffer " * 60: 150, "short": 30}


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


def expected_files(server):
    """Counts of positions that are a multiple of 100, by the name's ids."""
    found = {}
    for prompt, count in PROMPTS.items():
        ids = server.tokenizer.encode(prompt)
        sequence = [*ids, *server.expected(prompt, count)]
        for position in range(100, len(sequence), 100):
            if position >= len(ids):
                found[ids_text(sequence[:8]), position] = sequence[position]
    return found


def ask_everything(server):
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        answers = list(pool.map(lambda item: server.generate(*item), PROMPTS.items()))
    for (prompt, count), answer in zip(PROMPTS.items(), answers, strict=True):
        assert answer.json()["generated_text"] == server.text(prompt, count)


@pytest.mark.parametrize("api", ["logits", "greedy"])
def test_a_server_saves_the_logits_of_the_tokens_that_it_gives(tmp_path, api):
    """In the greedy variant no request wants log-probabilities, so that the device would take the argmax."""
    folder = tmp_path / "logits"
    overrides = [f"pipeline.save_logits_dir={folder}"]
    overrides += ["pipeline.llm_serving_logprobs=false"] if api == "greedy" else []
    server = Launched(tmp_path, overrides)
    try:
        ask_everything(server)
        expected = expected_files(server)
        saved = {}
        for path in folder.iterdir():
            match = FILE_NAME.fullmatch(path.name)
            saved[match["ids"], int(match["position"])] = np.load(path)
        assert len(list(folder.iterdir())) == len(expected)
        assert saved.keys() == expected.keys()
        for group, logits in saved.items():
            assert logits.shape == (1, VOCAB)
            assert int(logits.argmax()) == expected[group], group
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert server.end() == 0
    finally:
        server.stop()


def test_two_runs_agree_and_a_disturbed_one_is_found(tmp_path):
    """The same load in other batches and another order of steps: there is no difference, until one is made."""
    variants = {
        "base": ["pipeline.max_rows=8"],
        "new": ["pipeline.max_rows=2", "pipeline.overlap=false", "pipeline.prefix_cache=false"],
    }
    for name, overrides in variants.items():
        (tmp_path / f"{name}-server").mkdir()
        server = Launched(tmp_path / f"{name}-server", [f"pipeline.save_logits_dir={tmp_path / name}", *overrides])
        try:
            ask_everything(server)
        finally:
            server.stop()
    report = check(tmp_path / "base", tmp_path / "new", atol=5e-3)
    assert report.pairs == len(list((tmp_path / "base").iterdir())) > 3
    assert not report.failures
    victim = sorted((tmp_path / "new").iterdir())[0]
    logits = np.load(victim)
    logits[0, 1234] += 0.02
    np.save(victim, logits)
    (failure,) = check(tmp_path / "base", tmp_path / "new", atol=5e-3).failures
    assert victim.name in failure
    assert "token 1234" in failure


def test_a_directory_that_cannot_be_made_is_told_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    config = tmp_path / "server.yaml"
    config.write_text(CONFIG.replace("TOKENIZER", str(Path(DEMO_DIR) / "tokenizer.json")))
    command = [sys.executable, "-m", "pipeline.launch", "--config", str(config)]
    command += ["--set", f"pipeline.save_logits_dir={tmp_path / 'file' / 'logits'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "sampling could not start: NotADirectoryError" in done.stderr
