"""What docs/operations.md says: its tests exist, its figures are right, and what it shows works."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.config import load_configuration
from pipeline.config.configuration import Configuration
from pipeline.config.setting import settings_of
from pipeline.host.facts import mib, shared_memory_needed
from pipeline.runtime.engines import make_runner, shapes_of
from scripts.verify.deployment.dockerfile import parse
from tests.server.launched import Attempt, Launched, wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
UNIT = ROOT / "configs/ringserve.service"
SETTINGS = dict(settings_of(Configuration, ""))


# ---- the page ----------------------------------------------------------------------------------------------------


def promises():
    table = PAGE.split("| promise | checked by |")[1]
    return [row for row in table.splitlines() if row.startswith("| ")]


def test_every_promise_names_tests_that_exist():
    functions = {}
    for row in promises():
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test: {row}"
        for file, test in named:
            if file not in functions:
                tree = ast.parse((ROOT / file).read_text())
                functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert test in functions[file], f"{file} has no {test}"
            assert test.startswith("test_")
    assert len(functions) > 10


def test_the_table_of_shared_memory():
    rows = re.findall(
        r"^\| (.*) \| ([0-9.]+ MiB) \|$", PAGE.split("<!-- shm: begin")[1].split("<!-- shm: end")[0], re.M
    )
    assert len(rows) == 4
    path = ""
    for what, said in rows:
        path = next(iter(re.findall(r"`(configs/\S+\.yaml)`", what)), path)
        config = load_configuration(ROOT / path, re.findall(r"`(\S+=\S+)`", what))
        assert mib(shared_memory_needed(config, shapes_of(config, make_runner(config)))) == said, what


def test_every_key_and_file_that_is_named_exists():
    keys = set(re.findall(r"`((?:pipeline|pa_config|model_config)\.[a-z_.]+)(?:[:=][^`]*)?`", PAGE))
    assert len(keys) > 20
    known = {*SETTINGS, *(key.rpartition(".")[0] for key in SETTINGS)}
    assert not keys - known
    for path in re.findall(r"`((?:configs|scripts|docs)/[\w.]+)`|\]\((\w+\.md)\)", PAGE):
        assert (ROOT / path[0]).exists() if path[0] else (ROOT / "docs" / path[1]).exists(), path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Launched(tmp_path_factory.mktemp("server"), ())
    yield made
    made.stop()


def test_every_metric_that_is_named_exists(server):
    named = set(re.findall(r"`(ringserve_\w+)`", PAGE))
    assert len(named) > 8
    shown = server.client.get("/metrics").text
    assert not {name for name in named if f"\n{name}" not in shown}


def test_as_many_bytes_as_the_kernel_is_said_to_take(server):
    """128 KiB, of which the kernel makes 256."""
    from pipeline.launcher.listening import SEND_BUFFER_BYTES

    assert 2 * SEND_BUFFER_BYTES == 256 << 10
    assert "in the kernel 256 KiB" in PAGE


# ---- clocks ------------------------------------------------------------------------------------------------------

SHOWN_TO_PEOPLE = {
    "pipeline/exporter/spans.py",  # traces have the time of day
    "model/tokenizer/jinja.py",  # templates may name the day
    "pipeline/front/api/info_routes.py",  # `created`, as below
    "pipeline/front/api/ollama/answer.py",  # `created_at`
    "pipeline/front/api/ollama/routes.py",  # `modified_at`
    "pipeline/front/delivery/admission.py",
    "pipeline/front/http/responses.py",  # the header `date`
    "pipeline/launcher/restarts.py",  # the report
    "pipeline/runtime/logs.py",
    "pipeline/sampling/logits_files.py",  # names of files
}


def test_only_what_is_shown_to_people_looks_at_the_wall_clock():
    """No time-out, no order and no identity may depend on it."""
    looks = {
        str(file.relative_to(ROOT))
        for package in ("ipc", "model", "pipeline")
        for file in (ROOT / package).rglob("*")
        if file.suffix in {".py", ".c", ".h", ".cc"}
        and re.search(
            r"\btime\.time(_ns)?\(|\bdatetime\b|CLOCK_REALTIME|\bgettimeofday\(|\btime\(NULL|system_clock"
            r"|\btime\.(localtime|gmtime|ctime)\(",
            file.read_text(),
        )
    }
    assert looks <= SHOWN_TO_PEOPLE, looks - SHOWN_TO_PEOPLE
    assert "pipeline/runtime/logs.py" in looks


# ---- systemd -----------------------------------------------------------------------------------------------------


class Unit(configparser.RawConfigParser):
    def optionxform(self, option):
        return option


def seconds(text):
    return {"": 1, "s": 1, "min": 60}[text.strip("0123456789")] * int(text.strip("smin"))


def test_the_unit(tmp_path):
    unit = Unit(strict=False)
    unit.read(UNIT)
    service = dict(unit["Service"])
    drain = SETTINGS["pipeline.drain_timeout_s"].default
    assert seconds(service["TimeoutStopSec"]) > drain + 5
    assert (service["KillMode"], service["KillSignal"], service["OOMPolicy"]) == ("mixed", "SIGTERM", "continue")
    assert service["RestartPreventExitStatus"] == "2"
    assert int(service["LimitNOFILE"]) > SETTINGS["pipeline.max_connections"].default + 512
    for line in ("ExecStart", "ExecStartPre"):
        module = re.search(r"-m ([\w.]+)", service[line])[1]
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists() or (
            ROOT / module.replace(".", "/")
        ).is_dir()
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here to ask for its opinion")
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace("/opt/ringserve/.venv/bin/python", str(Path(sys.executable).resolve())))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_may_do_little(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here to ask for its opinion")
    judged = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)]
    done = subprocess.run(judged, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-300:]  # 20: an exposure of 2.0
    (rated,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert f"rates it {rated} " in PAGE


# ---- containers --------------------------------------------------------------------------------------------------


def test_the_dockerfile():
    """Its steps are run by `make test-deployment`."""
    text = (ROOT / "configs/Dockerfile").read_text()
    stages, project = parse(text), tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert len({stage.base for stage in stages}) == 1, "what is built for one is not for the other"
    number = re.match(r"python:([\d.]+)-slim", stages[0].base)[1]
    assert f">={number}" == project["project"]["requires-python"]
    copied = {word for step in stages[0].steps if step.kind == "COPY" for word in step.words}
    packages = {name for name in project["tool"]["setuptools"]["packages"]["find"]["include"] if "." not in name}
    files = {"pyproject.toml", "setup.py", project["project"]["readme"], *project["project"]["license-files"]}
    assert {*packages, *files} <= copied
    assert not re.search("gcc|g\\+\\+", " ".join(step.text for step in stages[-1].steps)), "a compiler stays"
    assert stages[-1].last("USER") != ("0",)
    port = SETTINGS["serving_config.server_port"].default
    assert f"EXPOSE {port}" in text
    assert f"http://127.0.0.1:{port}/health" in text
    for source in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.M):
        for name in source.split():
            assert (ROOT / name).exists(), name
    overrides = re.findall(r'"--set", \\?\s*"([^"]+)"', text)
    assert load_configuration(ROOT / "configs/demo.yaml", overrides).serving_config.server_ip == "0.0.0.0"


def in_a_pid_namespace():
    """A command that runs what follows as process 1; skips where that is not allowed."""
    ways = (["unshare"], ["unshare", "--user", "--map-root-user"])
    for way in ways if shutil.which("unshare") else ():
        command = [*way, "--pid", "--fork", "--mount-proc", "--kill-child"]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("no process namespaces here")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_as_process_1_of_a_container(tmp_path, number):
    """It serves, replaces a stage, and ends with all that belongs to it."""
    with Attempt(tmp_path, command=in_a_pid_namespace()) as attempt:
        assert attempt.outcome() == "ready"
        assert Path(f"/proc/{attempt.launcher}/status").read_text().split("NSpid:")[1].split()[:2][-1] == "1"
        assert attempt.tokens("first", 5) == 5
        attempt.kill("inference")
        assert attempt.tokens("again", 5) == 5
        stages = attempt.stages().values()
        os.kill(attempt.launcher, number)
        status = attempt.process.wait(20)
        assert (status == 0) is (number == signal.SIGTERM)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in stages), "stages outlive it")
