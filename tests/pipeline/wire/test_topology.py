"""What runs, in numbers; and that nothing else says so."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from itertools import chain

import pytest

import ipc
from pipeline.config import CpuConfig, SpinConfig, load_configuration
from pipeline.stats import STAGE_COUNTERS
from pipeline.wire.topology import (
    BEHIND_FRONT,
    FLOWS,
    FRONT,
    INFERENCE,
    ONE_OF_EACH,
    PREPROCESS,
    ROLES,
    SAMPLING,
    STAGES,
    Topology,
    device_of,
)
from scripts.lab.paths import ROOT

MANY = Topology(fronts=2, replicas=3, ranks=2)


# ---- one of each ------------------------------------------------------------------------------------------------


def test_one_of_each_has_the_plain_names():
    assert [stage.key for stage in ONE_OF_EACH.stages] == ["front", "preprocess", "inference", "sampling"]
    assert [stage.unit for stage in ONE_OF_EACH.stages] == [stage.key for stage in ONE_OF_EACH.stages]
    assert [ring.key for ring in ONE_OF_EACH.rings] == [flow.name for flow in FLOWS]


def test_who_has_which_ends():
    """As in the picture of docs/architecture.md."""
    ends = {
        stage.key: ({ring.key for ring in stage.reads}, {ring.key for ring in stage.writes})
        for stage in ONE_OF_EACH.stages
    }
    assert ends == {
        "front": ({"replies", "deltas"}, {"requests"}),
        "preprocess": ({"requests", "results"}, {"replies", "steps", "rows"}),
        "inference": ({"steps", "tokens"}, {"logits"}),
        "sampling": ({"logits", "rows"}, {"tokens", "results", "deltas"}),
    }
    assert {flow.name for flow in FLOWS if not flow.is_work} == {"tokens", "rows"}


def test_a_configuration_asks_for_one_of_each_or_for_replicas():
    path = ROOT / "configs" / "emulated_910b.yaml"
    assert Topology.of(load_configuration(path)) == ONE_OF_EACH
    config = load_configuration(path, ["pipeline.replicas=4", "serving_config.start_device_id=2"])
    assert Topology.of(config) == Topology(replicas=4)
    assert [device_of(config, replica) for replica in range(4)] == [2, 3, 4, 5]


# ---- many -------------------------------------------------------------------------------------------------------


def test_processes_of_many():
    keys = [stage.key for stage in MANY.stages]
    assert keys[:6] == ["front 0", "front 1", "preprocess 0", "inference 0.0", "inference 0.1", "sampling 0"]
    assert len(keys) == len(set(keys)) == 2 + 3 * (1 + 2 + 1)
    assert [stage.key for stage in MANY.unit("inference 2")] == ["inference 2.0", "inference 2.1"]
    assert [stage.key for stage in MANY.unit("sampling 2")] == ["sampling 2"]
    assert MANY.unit("the rings") == ()
    assert {stage.unit for stage in MANY.stages if stage.name != "inference"} == {
        stage.key for stage in MANY.stages if stage.name != "inference"
    }


def test_keys_say_no_more_than_is_needed():
    assert [stage.key for stage in Topology(ranks=2).stages][2:4] == ["inference 0.0", "inference 0.1"]
    assert {stage.unit for stage in Topology(ranks=2).stages} == set(STAGES)
    assert Topology(replicas=2).find(SAMPLING, 1).key == "sampling 1"
    assert [ring.key for ring in Topology(fronts=2).rings if ring.flow.name == "requests"] == [
        "requests_0_0", "requests_0_1",
    ]  # fmt: skip
    assert "steps" in [ring.key for ring in Topology(fronts=2, ranks=2).rings]


def test_every_front_has_a_lane_to_every_replica():
    lanes = {(ring.replica, ring.front, ring.flow.name) for ring in MANY.rings if ring.front is not None}
    assert lanes == {
        (replica, front, name) for replica in range(3) for front in range(2)
        for name in ("requests", "replies", "deltas")
    }  # fmt: skip
    assert len(MANY.rings) == len({ring.key for ring in MANY.rings}) == 3 * (2 * 3 + 5)
    for front in MANY.every(FRONT):
        assert {ring.front for ring in front.rings} == {front.rank}
        assert MANY.replicas_of(front) == (0, 1, 2)


def test_rings_of_a_replica_are_its_own():
    for replica in range(3):
        for stage in MANY.replica(replica):
            assert {ring.replica for ring in stage.rings} == {replica}
            assert MANY.replicas_of(stage) == (replica,)
        assert {stage.name for stage in MANY.users(replica)} == set(STAGES)
        assert len(MANY.users(replica)) == 2 + 4


def test_every_ring_has_one_producer_and_a_cursor_for_each_consumer():
    for ring in MANY.rings:
        producers = [stage for stage in MANY.stages if ring in stage.writes]
        assert producers == [MANY.producer(ring)]
        assert producers[0].rank == (ring.front or 0 if producers[0].is_front else 0)  # the first rank writes
        consumers = MANY.consumers(ring)
        assert [MANY.cursor(ring, stage) for stage in consumers] == [*range(len(consumers))]
        assert len(consumers) == (2 if ring.flow.consumer == INFERENCE.name else 1)


def test_a_stage_is_found_by_its_numbers():
    assert MANY.find(INFERENCE, 2, 1).key == "inference 2.1"
    assert MANY.find(FRONT, rank=1).key == "front 1"
    assert MANY.stage("inference 2.1") == MANY.find(INFERENCE, 2, 1)
    with pytest.raises(KeyError):
        MANY.find(PREPROCESS, 3)


def test_labels():
    assert [ONE_OF_EACH.labels(stage) for stage in ONE_OF_EACH.stages] == [
        {"stage": "front"},
        *({"stage": role.name, "replica": "0"} for role in BEHIND_FRONT),
    ]
    assert MANY.labels(MANY.stage("inference 2.1")) == {"stage": "inference", "replica": "2", "rank": "1"}
    assert MANY.labels(MANY.stage("front 1")) == {"stage": "front", "front": "1"}
    every = [frozenset(MANY.labels(stage).items()) for stage in MANY.stages]
    every += [frozenset(MANY.ring_labels(ring).items()) for ring in MANY.rings]
    assert len(set(every)) == len(every)


def test_keys_of_rings_can_name_segments():
    for key in {ring.key for ring in Topology(fronts=12, replicas=12, ranks=2).rings}:
        with ipc.ByteRing.create(key, capacity=64):
            pass


# ---- no other table -----------------------------------------------------------------------------------------------


def test_what_is_declared_by_role_is_declared_for_every_role():
    assert tuple(field.name for field in fields(CpuConfig)) == STAGES
    assert tuple(field.name for field in fields(SpinConfig)) == tuple(role.name for role in BEHIND_FRONT)
    assert set(STAGE_COUNTERS) == set(STAGES)
    assert {flow.producer for flow in FLOWS} | {flow.consumer for flow in FLOWS} == {role.name for role in ROLES}
    for role in ROLES:
        assert (ROOT / "pipeline" / role.name / "__main__.py").exists()


def test_no_other_table_names_stages_or_rings():
    """A literal with the names of two of them, or a class with members for two."""
    sources = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources
        if path.name != "topology.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if names_several(node)
    }
    assert found == set()


OWN_ENDS = {
    "PreprocessRings", "InferenceRings", "SamplingRings",  # what a stage holds, open
    "FrontRings",  # a lane
    "Kind",  # of frames of a link, in place of a lane
    "CpuConfig", "SpinConfig",  # keys of the configuration; compared with the roles above
    "RequestHistogram",  # "inference" is a phase of a request there
}  # fmt: skip


def names_several(node: ast.AST) -> bool:
    match node:
        case ast.Tuple(elts) | ast.List(elts) | ast.Set(elts):
            return several([each.value for each in elts if isinstance(each, ast.Constant)])
        case ast.Dict(keys, values):
            return any(
                several([one.value for one in each if isinstance(one, ast.Constant)]) for each in (keys, values)
            )
        case ast.ClassDef(name=name, body=body) if name not in OWN_ENDS:
            declared = [each.target for each in body if isinstance(each, ast.AnnAssign)]
            declared += chain.from_iterable(each.targets for each in body if isinstance(each, ast.Assign))
            return several([each.id.lower() for each in declared if isinstance(each, ast.Name)])
    return False


def several(words: list[object]) -> bool:
    rings = {flow.name for flow in FLOWS} - {"tokens", "rows", "requests", "steps"}  # words of their own
    return any(len(kind.intersection(map(str, words))) > 1 for kind in (set(STAGES), rings))


def test_neither_does_the_page():
    for path in (ROOT / "pipeline" / "front" / "page" / "static").glob("*.js"):
        assert not several(re.findall(r"\w+", path.read_text())), path


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("X = ('front', 'sampling')", True),
        ("X = {'steps': 1, 'logits': 2, 'deltas': 3}", True),
        ("for stage in ['inference', 'preprocess']: pass", True),
        ("class Wiring:\n    replies: int\n    deltas: int", True),
        ("class InferenceRings:\n    logits: int\n    results: int", False),
        ("X = ('front', 'back')", False),
        ("start('front')", False),
    ],
)
def test_such_a_table_would_be_found(source, wrong):
    assert any(map(names_several, ast.walk(ast.parse(source)))) is wrong
