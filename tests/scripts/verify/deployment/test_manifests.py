"""What a manifest's schema refuses is told; the package of schemas is a small one of the test."""

from __future__ import annotations

import json
import zipfile

import pytest

from scripts.lab.errors import BenchError
from scripts.verify.deployment.manifests import VERSIONS, Schemas, documents, mistakes

PLACE = "https://kubernetes.io/api/_definitions.json"
PORTS = {"$ref": f"{PLACE}#/$defs/Ports"}
SPEC = {"type": "object", "properties": {"ports": PORTS}, "additionalProperties": False}
POLICY = {"type": "object", "properties": {"spec": SPEC}, "required": ["spec"]}
DEFINITIONS = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": PLACE,
    "$defs": {"Ports": {"type": "array", "items": {"type": "integer"}}},
}


@pytest.fixture
def schemas(tmp_path):
    with zipfile.ZipFile(tmp_path / "schemas.whl", "w") as wheel:
        for version in VERSIONS:
            folder = f"kubernetes_validate/kubernetes-json-schema/v{version}-local-strict"
            wheel.writestr(f"{folder}/_definitions.json", json.dumps(DEFINITIONS))
            wheel.writestr(f"{folder}/networkpolicy-networking-v1.json", json.dumps(POLICY))
    return Schemas(tmp_path / "schemas.whl")


def policy(**spec):
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "one"}, "spec": spec,
    }  # fmt: skip


def test_a_key_that_is_none_and_a_value_of_another_type_are_mistakes(schemas):
    assert mistakes(schemas, policy(ports=[1])) == []
    (one, other) = mistakes(schemas, policy(ports=[1], port=2))
    assert "NetworkPolicy one, spec: " in one
    assert "'port' was unexpected" in one
    assert other.endswith(f"(Kubernetes {VERSIONS[1]})")
    assert "spec.ports.0" in mistakes(schemas, policy(ports=["a"]))[0]


def test_a_kind_that_kubernetes_does_not_have_is_refused(schemas):
    with pytest.raises(BenchError, match=f"Kubernetes {VERSIONS[0]} has no ingress-networking-v1"):
        mistakes(schemas, policy() | {"kind": "Ingress"})


def test_what_is_no_part_of_kubernetes_is_named(schemas, capsys):
    assert mistakes(schemas, policy() | {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"}) == []
    assert capsys.readouterr().out == "not checked: HTTPRoute one (gateway.networking.k8s.io/v1)\n"


def test_every_kind_of_the_manifests_is_looked_at():
    kinds = {document["kind"] for _, document in documents()}
    assert {"StatefulSet", "Deployment", "Service", "NetworkPolicy", "HorizontalPodAutoscaler"} <= kinds
