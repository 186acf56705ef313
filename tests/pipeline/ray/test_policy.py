from types import SimpleNamespace

import pytest

from pipeline.ray.child import links_of, load_of
from pipeline.ray.policy import LOAD, nodes_for, scale


def metrics(running, waiting, rows=32):
    return {"num_requests_running": running, "num_requests_waiting": waiting, "max_rows": [rows]}


def test_a_load_is_how_many_nodes_like_this_it_is_worth():
    assert load_of(metrics([16.0], [0.0]), 1.0) == 0.5
    assert load_of(metrics([32.0], [64.0]), 1.0) == 3.0
    assert load_of(metrics([16.0, 16.0], [0.0, 0.0]), 0.5) == 1.0  # of two replicas


def test_a_node_is_linked_while_none_of_its_replicas_is_up():
    told = [{"node": "a:1", "state": "linked", "replicas_up": 0}, {"node": "b:1", "state": "not linked"}]
    assert links_of(told) == {"a:1": True, "b:1": False}


@pytest.mark.parametrize(
    ("loads", "now", "wanted"),
    [({}, 3, 3), (None, 2, 2), ({"a": 0.0}, 2, 1), ({"a": 1.0, "b": 1.0}, 2, 2), ({"a": 1.6, "b": 0.5}, 2, 3)],
)
def test_so_many_nodes_there_should_be(loads, now, wanted):
    assert nodes_for(loads, now) == wanted
    metrics = None if loads is None else {LOAD: loads}
    assert scale(SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=now)) == (wanted, {})
