"""The benchmark of speculation: its texts, and a short run on an emulated device."""

import json
import sys

import pytest

from scripts.bench.speculation import __main__ as bench
from scripts.bench.speculation.texts import COUNT, KINDS, texts
from scripts.lab.paths import ROOT


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_enough_texts_of_each_kind(kind):
    found = texts(kind)
    assert len(found) == len(set(found)) == COUNT == 20
    assert all(len(text.prompt) > 300 and len(text.answer) > 300 for text in found)
    assert texts(kind) == found


def test_a_gain_is_judged_by_the_median():
    alone = bench.Gain("edits", 1, [3.0, 1.0, 2.6], 2.0, 0.9, 0.1, same=True)
    assert (alone.goal.measured, alone.goal.met) == (2.6, True)
    together = bench.Gain("edits", 16, [0.9, 1.0, 0.97], 2.0, 0.9, 0.1, same=True)
    assert (together.goal.goal, together.goal.met) == (0.98, False)


@pytest.mark.server
def test_both_servers_answer_the_same_and_one_takes_fewer_steps(tmp_path, monkeypatch, capsys):
    arguments = ["--model", str(ROOT / "configs" / "emulated_910b.yaml"), "--kinds", "edits", "--rows", "10",
                 "--tokens", "40", "--set", "pipeline.runner.cost_model={fixed_ms: 2.0}",
                 "--json", str(tmp_path / "out.json")]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    bench.main()
    (gain,) = json.loads((tmp_path / "out.json").read_text())["gains"]
    assert gain["same"]
    assert gain["tokens_per_step"] > 1.3
    assert gain["accepted"] > 0.6
    assert len(gain["ratios"]) == 10
    assert "10 rows" in capsys.readouterr().out
