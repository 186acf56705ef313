"""The Kubernetes manifests say of ports, times, files and metrics what is so. Their form is checked by
`make test-deployment`, against the published schemas."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import yaml

from pipeline.front.http.access import PROBES
from pipeline.front.metrics.vllm import NAMES
from pipeline.host.facts import shared_memory_needed
from pipeline.launcher.options import add_node_options, add_options, add_router_options, load
from pipeline.runtime.engines import make_runner, shapes_of
from scripts.verify.deployment.manifests import FOLDER, whole_files

ROOT = Path(__file__).parents[2]
OPTIONS = {"node": add_node_options, "router": add_router_options, "serve": add_options}
UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}


def documents(*folders):
    return [
        one for name in folders for file in whole_files(FOLDER / name) for one in yaml.safe_load_all(file.read_text())
    ]


BASE, GATEWAY, MONITORED = documents("base"), documents("gateway"), documents("monitored")
WORKLOADS = [one for one in (*BASE, *GATEWAY) if one["kind"] in ("StatefulSet", "Deployment")]


def named(kind, name):
    (found,) = (
        one for one in (*BASE, *GATEWAY, *MONITORED) if (one["kind"], one["metadata"]["name"]) == (kind, name)
    )
    return found


def pod(workload):
    return workload["spec"]["template"]["spec"]


def container(workload):
    (only,) = pod(workload)["containers"]
    return only


def ports(workload):
    return {port["name"]: port["containerPort"] for port in container(workload)["ports"]}


def configured(workload, tmp_path):
    """What its command is started with; the image's folder is this one."""
    folder = "gateway" if workload in GATEWAY else "base"
    text = (FOLDER / folder / "server.yaml").read_text().replace("/opt/ringserve", str(ROOT))
    (file := tmp_path / "server.yaml").write_text(text)
    only = container(workload)
    program, role = only["command"]
    assert program == "/opt/ringserve/.venv/bin/ringserve"
    OPTIONS[role](parser := argparse.ArgumentParser())
    options = parser.parse_args([word.replace("/etc/ringserve/server.yaml", str(file)) for word in only["args"]])
    return load(options, other_host=True)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload["metadata"]["name"])
class TestWorkload:
    def test_ports_are_those_that_it_listens_on(self, workload, tmp_path):
        config, known = configured(workload, tmp_path), ports(workload)
        listens = {"metrics": config.pipeline.metrics_port}
        if config.pipeline.link.listen:
            listens["link"] = int(config.pipeline.link.listen.rpartition(":")[2])
        else:
            listens["http"] = config.serving_config.server_port
            assert config.pipeline.hosts == ("0.0.0.0",)
        assert known == {name: port for name, port in listens.items() if port}
        assert config.pipeline.metrics_port is None or config.pipeline.metrics_host == "0.0.0.0"
        annotations = workload["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(known.get("metrics", known.get("http")))

    def test_it_has_time_to_drain(self, workload, tmp_path):
        wait = (
            container(workload).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        )
        drain = configured(workload, tmp_path).pipeline.drain_timeout_s
        assert pod(workload)["terminationGracePeriodSeconds"] >= int(wait[1]) + drain + 10
        assert int(wait[1]) >= 5 or "http" not in ports(workload), "balancers hear too late"

    def test_probes(self, workload):
        probes = {name: container(workload)[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
        for probe in probes.values():
            assert probe["httpGet"]["path"] in PROBES
            assert probe["httpGet"]["port"] in ports(workload)
            assert probe.get("timeoutSeconds", 1) <= probe["periodSeconds"]
        assert probes["readiness"]["httpGet"]["path"] == "/ready"
        assert probes["liveness"]["httpGet"]["path"] == "/health", "one that drains must live"
        patience = {name: probe["periodSeconds"] * probe["failureThreshold"] for name, probe in probes.items()}
        loads = "router" not in workload["metadata"]["name"]
        assert patience["liveness"] >= (600 if loads else 60)
        assert patience["startup"] >= (1800 if loads else 60)
        assert probes["startup"]["httpGet"]["path"] == ("/ready" if loads else "/health")

    def test_it_may_do_no_more_than_it_must(self, workload):
        assert pod(workload)["automountServiceAccountToken"] is False
        context, own = pod(workload)["securityContext"], container(workload)["securityContext"]
        assert context["runAsNonRoot"]
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        user = re.search(r"useradd .*--uid (\d+)", (ROOT / "configs/Dockerfile").read_text())[1]
        assert {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}
        assert own == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        resources = container(workload)["resources"]
        assert resources["limits"] == {"memory": resources["requests"]["memory"]}

    def test_what_is_mounted_is_there_and_can_be_written(self, workload, tmp_path):
        volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
        mounts = {mount["mountPath"]: mount for mount in container(workload)["volumeMounts"]}
        assert {mount["name"] for mount in mounts.values()} == set(volumes)
        config = configured(workload, tmp_path)
        cache = str(config.pipeline.runner.compile_cache)
        written = {path for path, mount in mounts.items() if "emptyDir" in volumes[mount["name"]]}
        assert any(cache.startswith(path) for path in written)
        assert "/tmp" in written
        assert "WORKDIR /var/cache/ringserve\n" in (ROOT / "configs/Dockerfile").read_text()
        assert "/var/cache/ringserve" in written
        read = [word for word in container(workload)["args"] if "=/etc/ringserve/" in word]
        assert all(word.partition("=")[2] in mounts for word in read)
        assert all(mounts[word.partition("=")[2]]["readOnly"] for word in read)

    def test_shared_memory_has_room(self, workload, tmp_path):
        config = configured(workload, tmp_path)
        needed = shared_memory_needed(config, shapes_of(config, make_runner(config)))
        shm = [one["emptyDir"] for one in pod(workload)["volumes"] if one["name"] == "shm"]
        if config.pipeline.nodes:
            assert not shm
            assert needed < 2 << 20, "its rings would want a volume"
        else:
            assert shm[0]["medium"] == "Memory"
            number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", shm[0]["sizeLimit"]).groups()
            assert needed <= int(number) * UNITS[unit]

    def test_others_select_it(self, workload):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        name = workload["metadata"]["name"]
        for selector in (workload["spec"], named("PodDisruptionBudget", name)["spec"]):
            assert selector["selector"]["matchLabels"].items() <= labels.items()
        for service in (one for one in BASE if one["kind"] == "Service"):
            if service["spec"]["selector"].items() <= labels.items():
                assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports(workload))


def test_routers_know_all_nodes_that_there_may_be(tmp_path):
    nodes, routers = named("StatefulSet", "ringserve-node"), named("Deployment", "ringserve-router")
    most = named("HorizontalPodAutoscaler", "ringserve-node")["spec"]["maxReplicas"]
    service = named("Service", nodes["spec"]["serviceName"])["metadata"]["name"]
    port = ports(nodes)["link"]
    names = tuple(f"ringserve-node-{number}.{service}:{port}" for number in range(most))
    assert configured(routers, tmp_path).pipeline.nodes == names
    page = (ROOT / "docs/deployment.md").read_text()
    assert f"--host=ringserve-node-{{0..{most - 1}}}.{service}" in page, "their certificate names them"


def test_both_have_what_a_link_compares(tmp_path):
    from pipeline.front.main import link_settings

    facts = [
        link_settings(configured(named(*which), tmp_path), 2048, "").facts
        for which in (("StatefulSet", "ringserve-node"), ("Deployment", "ringserve-router"))
    ]
    assert facts[0] == facts[1]


def test_autoscalers_read_metrics_that_exist():
    page = (ROOT / "docs/metrics.md").read_text()
    rule = yaml.safe_load((FOLDER / "monitored/adapter-rules.yaml").read_text())["rules"]["custom"][0]["seriesQuery"]
    pattern = re.search(r'__name__=~"([^"]+)"', rule)[1]
    scalers = [one for one in (*BASE, *MONITORED) if one["kind"] == "HorizontalPodAutoscaler"]
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        assert named(target["kind"], target["name"])
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "Pods":
                name = metric["pods"]["metric"]["name"]
                assert f"`{name}`" in page
                assert re.fullmatch(pattern, name)
    assert len(scalers) == 2


def test_an_endpoint_picker_finds_its_metrics(tmp_path):
    server, pool = named("Deployment", "ringserve-server"), named("InferencePool", "ringserve")
    config = configured(server, tmp_path)
    assert config.pipeline.vllm_metrics
    assert config.pipeline.metrics_port is None, "it reads them on the port of the API"
    assert pool["spec"]["targetPorts"] == [{"number": config.serving_config.server_port}]
    labels = server["spec"]["template"]["metadata"]["labels"]
    assert pool["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert {"num_requests_waiting", "num_requests_running", "kv_cache_usage_perc"} <= set(NAMES.values())


def test_the_monitor_scrapes_routers_and_nodes():
    (endpoint,) = named("PodMonitor", "ringserve")["spec"]["podMetricsEndpoints"]
    for workload in (one for one in WORKLOADS if one in BASE):
        assert endpoint["port"] in ports(workload)


def test_the_device_is_asked_for_and_the_model_is_a_volume():
    server = yaml.safe_load((FOLDER / "ascend/server.yaml").read_text())
    patches = [yaml.safe_load((FOLDER / "ascend" / name).read_text()) for name in ("node.yaml", "router.yaml")]
    for patch, workload in zip(patches, ("StatefulSet", "Deployment"), strict=True):
        original = container(named(workload, patch["metadata"]["name"]))
        (changed,) = patch["spec"]["template"]["spec"]["containers"]
        assert changed["name"] == original["name"]
        (mount,) = changed["volumeMounts"]
        assert server["pipeline"]["model_dir"].startswith(mount["mountPath"] + "/")
    resources = patches[0]["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["huawei.com/Ascend910"] == resources["requests"]["huawei.com/Ascend910"] == 1
    same = yaml.safe_load((FOLDER / "base/server.yaml").read_text())["pipeline"]
    del same["model_dir"], server["pipeline"]["model_dir"], server["pipeline"]["runner"]["device"]
    assert server["pipeline"] == same


@pytest.mark.parametrize("workload", [one for one in WORKLOADS if one in BASE], ids=["node", "router"])
def test_what_is_for_operators_or_routers_is_reached_by_no_other_pod(workload):
    policy = named("NetworkPolicy", workload["metadata"]["name"])["spec"]
    assert policy["podSelector"] == workload["spec"]["selector"]
    assert policy["policyTypes"] == ["Ingress"]
    open_to = {port["port"]: rule.get("from") for rule in policy["ingress"] for port in rule["ports"]}
    assert open_to.keys() == ports(workload).keys()
    assert {name for name, whom in open_to.items() if whom is None} <= {"http"}
