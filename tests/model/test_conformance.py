"""Every runner keeps the one contract (model/runner.py): emulated, mindformers with static and dynamic shapes,
and the decoder for all families, on MindSpore and on OpenVINO."""

import pytest

from model.emulated import CostModel, EmulatedRunner, EmulatedSettings
from model.mindformers_runner import MindFormersRunner, MindFormersSettings
from model.runner import Bucket
from tests.model import conformance
from tests.model.conftest import DATA, needs_openvino


@pytest.mark.parametrize("check", [check.__name__ for check in conformance.EVERYWHERE])
def test_emulated(check):
    conformance.run("emulated", check)


@pytest.mark.parametrize(
    "check", [check.__name__ for check in (*conformance.EVERYWHERE, *conformance.WHERE_SOMETHING_COMPUTES)]
)
@pytest.mark.parametrize("engine", ["static", "dynamic", "decoder"])
def test_in_mindspore(in_mindspore, engine, check):
    in_mindspore(conformance.run, engine, check)


@needs_openvino
@pytest.mark.parametrize(
    "check", [check.__name__ for check in (*conformance.EVERYWHERE, *conformance.WHERE_SOMETHING_COMPUTES)]
)
def test_in_openvino(in_openvino, check):
    in_openvino(conformance.run, "openvino", check)


@pytest.mark.parametrize("check", [check.__name__ for check in conformance.WITH_ADAPTERS])
def test_emulated_with_adapters(check):
    conformance.run("emulated with adapters", check)


@pytest.mark.parametrize("check", [check.__name__ for check in conformance.WITH_ADAPTERS])
def test_in_mindspore_with_adapters(in_mindspore, check):
    in_mindspore(conformance.run, "decoder with adapters", check)


def test_facts_say_what_an_engine_leaves_to_the_host():
    plain = {"num_blocks": 4, "block_size": 16, "greedy_on_device": False}
    emulated = EmulatedRunner(EmulatedSettings(CostModel(0.0), 64, 32, buckets=(Bucket(1, 1),), **plain))
    mindformers = MindFormersRunner(MindFormersSettings(DATA / "grouped", max_rows=1, token_budget=1, **plain))
    for runner in (emulated, mindformers):
        assert (runner.facts.candidates, runner.facts.scores, runner.facts.adapters) == (0, False, 0)
