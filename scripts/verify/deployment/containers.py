"""Starts the image: by itself, as its first lines show, and as the pods of configs/kubernetes/base would: with their
commands, users, mounts, read-only roots and probes, on this machine's kernel."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from pipeline.launcher.certificates import make_certificates
from scripts.lab.arguments import say
from scripts.lab.errors import BenchError
from scripts.lab.processes import children, kill, spawn
from scripts.verify.deployment.image import Image
from scripts.verify.deployment.manifests import FOLDER, whole_files
from scripts.verify.deployment.roots import Mount, command

_START_S: Final = 180.0
_STOP_S: Final = 60.0
_SHM: Final = Mount("/dev/shm", size=64 << 20)  # noqa: S108 - in its root, where every engine has one
_UNITS: Final = {"Mi": 1 << 20, "Gi": 1 << 30}
_KEY: Final = "a-key-of-this-try"


class Container:
    """One that runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    @property
    def launcher(self) -> int:
        return children(self.process.pid)[0]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Raises BenchError with its last words if that does not come true."""
        deadline = time.monotonic() + _START_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{what}; its log ends with:\n{self._log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit status."""
        os.kill(self.launcher, number)
        return self.process.wait(_STOP_S)


@contextlib.contextmanager
def _started(words: Sequence[str], log: Path) -> Iterator[Container]:
    process = spawn(words, log)
    try:
        yield Container(process, log)
    finally:
        kill(process)


# ---- the image by itself -----------------------------------------------------------------------------------------


def try_image(image: Image, folder: Path) -> list[str]:
    """What is wrong with it: ENTRYPOINT and CMD until HEALTHCHECK is content, a question, and STOPSIGNAL. Raises
    BenchError."""
    mounts = [_SHM, *(Mount(path, _writable(folder / "volume", image.user)) for path in image.stage.last("VOLUME"))]

    def inside(words: Sequence[str]) -> list[str]:
        return command(image.root, words, image.folder, image.environment, image.user, mounts)

    def healthy() -> bool:
        return not subprocess.run(
            inside(image.stage.last("HEALTHCHECK")), capture_output=True, check=False
        ).returncode

    (port,) = map(int, image.stage.last("EXPOSE"))
    with _started(inside(image.command), folder / "image.log") as server:
        server.wait(healthy, "HEALTHCHECK is not content")
        server.wait(lambda: _status(port, "/ready") == 200, "it is not ready")
        found = [] if _completes(port) else ["no completion came"]
        if f"Uid:\t{image.user}\t" not in Path(f"/proc/{server.launcher}/status").read_text():
            found.append(f"its user is not {image.user}")
        status = server.stop(signal.Signals[image.stage.last("STOPSIGNAL")[0]])
        return [*found, *([f"it ended with {status}"] if status else [])]


# ---- as pods -----------------------------------------------------------------------------------------------------


def try_pods(image: Image, folder: Path) -> list[str]:
    """What is wrong with them: a node and a router of the base, and a question through both. Raises BenchError."""
    texts = (path.read_text() for path in whole_files(FOLDER / "base"))
    kinds = {document["kind"]: document for text in texts for document in yaml.safe_load_all(text)}
    node = f"{kinds['StatefulSet']['metadata']['name']}-0.{kinds['StatefulSet']['spec']['serviceName']}"
    make_certificates(folder / "certificates", [node])
    (folder / "hosts").write_text(f"127.0.0.1 localhost {node}\n")
    pods = [Pod(kinds[kind]["spec"]["template"]["spec"], image, folder) for kind in ("StatefulSet", "Deployment")]
    found: list[str] = []
    with pods[0].started() as first, pods[1].started() as router:
        for pod, container in zip(pods, (first, router), strict=True):
            pod.await_probes(container)
        port = pods[1].port("http")
        found += [] if _completes(port, _KEY) else ["no completion came through router and node"]
        found += ["requests without a key are answered"] if _completes(port) else []
        found += [f"{pod.name}: preStop fails" for pod in pods if not pod.runs_pre_stop()]
        status = first.stop()
        found += [f"the node ended with {status}"] if status else []
        router.wait(lambda: not pods[1].probe("readiness"), "a router without a node is ready")
        found += [] if pods[1].probe("liveness") else ["a router without a node is not alive"]
        status = router.stop()
        return [*found, *([f"the router ended with {status}"] if status else [])]


class Pod:
    """Of one container."""

    def __init__(self, spec: Mapping[str, Any], image: Image, folder: Path) -> None:
        self._spec, self._image, self._folder = spec, image, folder
        (self._container,) = spec["containers"]
        self.name: str = self._container["name"]
        self._user = str(spec["securityContext"]["runAsUser"])
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        self._mounts = [self._mount(mount, volumes[mount["name"]]) for mount in self._container["volumeMounts"]]

    @contextlib.contextmanager
    def started(self) -> Iterator[Container]:
        words = [*self._container["command"], *self._container["args"]]
        with _started(self._inside(words), self._folder / f"{self.name}.log") as container:
            say(f"{self.name}: {' '.join(words)[:100]}")
            yield container

    def await_probes(self, container: Container) -> None:
        """As a kubelet asks them, one after the other. Raises BenchError."""
        for which in ("startup", "readiness", "liveness"):
            container.wait(functools.partial(self.probe, which), f"{self.name}: its {which} probe fails")

    def probe(self, which: str) -> bool:
        asked = self._container[f"{which}Probe"]["httpGet"]
        return _status(self.port(asked["port"]), asked["path"]) == 200

    def port(self, name: str) -> int:
        return int(next(port["containerPort"] for port in self._container["ports"] if port["name"] == name))

    def runs_pre_stop(self) -> bool:
        """Whether the program is there; how long it sleeps is not waited for."""
        words = self._container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        return not words or not subprocess.run(self._inside([words[0], "0"]), check=False).returncode

    def _inside(self, words: Sequence[str]) -> list[str]:
        own = {one["name"]: _KEY for one in self._container.get("env", ())}
        settings = {**self._image.environment, **own}
        usual = [_SHM, Mount("/etc/hosts", self._folder / "hosts", read_only=True)]
        return command(
            self._image.root,
            words,
            self._image.folder,
            settings,
            self._user,
            [*usual, *self._mounts],
            read_only=self._container["securityContext"]["readOnlyRootFilesystem"],
        )

    def _mount(self, mount: Mapping[str, Any], volume: Mapping[str, Any]) -> Mount:
        path, place = mount["mountPath"], self._folder / f"{self.name}-{mount['name']}"
        if "configMap" in volume:
            return Mount(path, FOLDER / "base" / mount["subPath"], read_only=True)
        if "secret" in volume:
            return Mount(path, self._secret(place, volume["secret"]["defaultMode"]), read_only=True)
        limit = volume["emptyDir"]["sizeLimit"]
        if volume["emptyDir"].get("medium") == "Memory":
            return Mount(path, size=int(limit[:-2]) * _UNITS[limit[-2:]])
        return Mount(path, _writable(place, self._user))

    def _secret(self, place: Path, mode: int) -> Path:
        """Files of this role, which their group can read."""
        place.mkdir()
        for name in ("ca.pem", f"{self.name}.pem", f"{self.name}.key"):
            (place / name).write_bytes((self._folder / "certificates" / name).read_bytes())
            (place / name).chmod(mode)
            os.chown(place / name, 0, int(self._user))
        return place


def _writable(folder: Path, user: str) -> Path:
    folder.mkdir(exist_ok=True)
    os.chown(folder, int(user), int(user))
    return folder


# ---- what is asked -----------------------------------------------------------------------------------------------


def _status(port: int, path: str) -> int:
    """0 where nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status
    return 0


def _completes(port: int, key: str = "") -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"prompt": "Question: What is a ring buffer?\nAnswer:", "max_tokens": 16, "temperature": 0})
    with contextlib.closing(connection):
        connection.request("POST", "/v1/completions", body, {"authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        text = json.loads(answer.read())["choices"][0]["text"] if answer.status == 200 else ""
        return "queue" in text
