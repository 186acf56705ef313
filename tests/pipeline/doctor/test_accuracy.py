"""Golden prompts on two engines, and what is made of their logits."""

from __future__ import annotations

import json
import platform

import numpy as np
import pytest

from model.openvino.requirements import missing_flag, missing_package
from pipeline.config import load_configuration
from pipeline.doctor import Level, golden
from pipeline.doctor.accuracy import AccuracyError, check_accuracy, compare, precision_of, reference_of, verdict
from pipeline.doctor.subject import Plan
from pipeline.runtime.engines import make_runner
from tests.pipeline.doctor.helpers import DEMO, doctor, only, plan_of

NO_OPENVINO = platform.machine() != "x86_64" or missing_flag() or missing_package()


def logits(noise, *, positions=40, vocab=500):
    rng = np.random.default_rng(3)
    expected = rng.normal(size=(positions, vocab)).astype(np.float32)
    expected[np.arange(positions), rng.integers(vocab, size=positions)] += 8  # a clear best token
    return expected, expected + noise * rng.normal(size=expected.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("noise", "precision", "level"),
    [
        (0.001, "float32", Level.OK),
        (0.04, "float32", Level.WARN),
        (0.04, "half", Level.OK),
        (0.15, "half", Level.WARN),
        (0.15, "byte", Level.OK),
        (1.0, "byte", Level.FAIL),
    ],
)
def test_how_much_may_differ_depends_on_the_precision(noise, precision, level):
    agreement = compare(*logits(noise))
    assert verdict(agreement, precision, "it").level is level
    assert f"the best token is the same at {agreement.same_best}" in verdict(agreement, precision, "it").text


def test_another_best_token_is_wrong_however_near():
    expected, found = logits(0)
    found[:10] = np.roll(found[:10], 1, axis=-1)
    agreement = compare(expected, found)
    assert agreement.same_best == 30
    assert verdict(agreement, "byte", "it").level is Level.FAIL


def test_logits_that_are_no_numbers_are_wrong():
    expected, found = logits(0)
    found[3, 4] = np.nan
    finding = verdict(compare(expected, found), "half", "it")
    assert (finding.level, "not finite" in finding.text) == (Level.FAIL, True)


def test_what_it_is_compared_with():
    demo = load_configuration(DEMO, ["serving_config.server_port=0"])
    assert (reference_of(demo), precision_of(demo)) == ("mindspore", "float32")
    own = load_configuration(DEMO, ["serving_config.server_port=0", "pipeline.runner.kind=mindspore"])
    assert reference_of(own) == "openvino"
    with pytest.raises(AccuracyError, match="emulated"):
        reference_of(plan_of().config)
    assert "can't be measured: an emulated device" in only(check_accuracy(plan_of())).text


def test_it_needs_a_configuration():
    done = doctor("--accuracy", "--json")
    assert done.returncode == 1
    assert "accuracy needs a configuration" in json.loads(done.stdout)["findings"][-1]["text"]


@pytest.mark.engine
@pytest.mark.skipif(bool(NO_OPENVINO), reason=f"openvino can't run here: {NO_OPENVINO}")
def test_two_engines_agree_on_the_demo_model():
    """Both really run, each in a process of its own, prompts in pieces and answers as a batch."""
    own = ["serving_config.server_port=0", "pipeline.runner.kind=openvino", "pa_config.block_size=32"]
    finding = only(check_accuracy(Plan.of(load_configuration(DEMO, own))))
    assert (finding.level, finding.fix) == (Level.OK, "")
    assert "72 positions" in finding.text
    assert "the best token is the same at 72" in finding.text


def test_an_engine_that_fails_says_why(tmp_path):
    files = [tmp_path / name for name in ("engine.yaml", "asked.json", "logits.npy")]
    files[0].write_text(plan_of().config.to_yaml())
    files[1].write_text(json.dumps({"prompts": [[1] * 2000] * 1000, "answers": None, "tokens": 2}))
    assert golden.main(*map(str, files)) == 1
    assert "KV blocks are needed for the golden prompts" in files[2].read_text()


def test_prompts_in_pieces_and_answers_in_a_batch(tmp_path):
    """An emulated device says for every position which token follows: the same ones, asked or given."""
    runner = make_runner(plan_of().config)
    runner.load()
    prompts = [[5] * 700, [7, 8, 9]]
    chosen = golden.Golden(runner).run(prompts, None, 4)
    answers = chosen.argmax(axis=-1).T.tolist()
    np.testing.assert_array_equal(golden.Golden(runner).run(prompts, answers, 4), chosen)
    runner.close()
