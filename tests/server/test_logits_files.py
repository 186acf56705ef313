"""`pipeline.save_logits_dir`: what a real server writes, against the logits that the device is known to give."""

from __future__ import annotations

import concurrent.futures
import stat

import numpy as np
import pytest

from pipeline.sampling.logits_files import ids_text
from scripts.tools.check_logits import FILE_NAME, check
from tests.server.launched import Launched, run_launcher, write_config

VOCAB = 2048
PROMPTS = {"a": 210, "What is a ring?": 230, "ring buffer " * 60: 150, "short": 30}


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
    config = write_config(tmp_path)
    done = run_launcher(config, f"pipeline.save_logits_dir={tmp_path / 'file' / 'logits'}")
    assert done.returncode == 1
    assert "sampling could not start: NotADirectoryError" in done.stderr
