"""The Kubernetes manifests against the schemas that Kubernetes publishes, as the package kubernetes-validate has
them: strictly, so that a key that does not exist is a mistake, of the oldest and the newest version in service.

With `kubectl` each folder is checked as it is applied; without, each file by itself. What is no part of Kubernetes
itself (Prometheus' operator, gateways) is named, and not checked.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.lab.errors import BenchError

ROOT: Final = Path(__file__).parents[3]
FOLDER: Final = ROOT / "configs/kubernetes"
PACKAGE: Final = "kubernetes-validate==1.37.*"
VERSIONS: Final = ("1.30.0", "1.37.0")
_CACHE: Final = ROOT / ".cache/deployment"
_SCHEMA: Final = "kubernetes_validate/kubernetes-json-schema/v{}-local-strict/{}.json"
_FOREIGN: Final = ("monitoring.coreos.com/", "inference.networking.k8s.io/", "gateway.networking.k8s.io/")

Document = Mapping[str, Any]


def check_manifests(wheel: Path | None) -> list[str]:
    """What is not as its schema says. `wheel`: of kubernetes-validate, in place of a download. Raises BenchError."""
    schemas = Schemas(wheel or _download())
    return [f"{name}: {text}" for name, document in documents() for text in mistakes(schemas, document)]


def documents() -> Iterator[tuple[str, Document]]:
    """Where from, and what. Raises BenchError."""
    kubectl = shutil.which("kubectl")
    for folder in sorted(path.parent for path in FOLDER.glob("*/kustomization.yaml")):
        texts = [_rendered(kubectl, folder)] if kubectl else [path.read_text() for path in whole_files(folder)]
        for text in texts:
            yield from ((folder.name, document) for document in yaml.safe_load_all(text))


def whole_files(folder: Path) -> list[Path]:
    """Those that are no patches."""
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [folder / name for name in listed if (folder / name).is_file()]


def _rendered(kubectl: str, folder: Path) -> str:
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{folder.name}: {done.stderr.strip()}")
    return done.stdout


class Schemas:
    """Of a wheel, which is not unpacked: it has 17,000 files."""

    def __init__(self, wheel: Path) -> None:
        self._wheel = zipfile.ZipFile(wheel)

    def validator(self, document: Document, version: str) -> Any:
        """Raises BenchError where there is no such kind."""
        import jsonschema
        from referencing import Registry, Resource

        group, _, number = document["apiVersion"].rpartition("/")
        api = f"{group.split('.')[0]}-{number}" if group else number
        schema = self._read(version, f"{document['kind'].lower()}-{api}")
        definitions = Resource.from_contents(self._read(version, "_definitions"))
        return jsonschema.Draft202012Validator(schema, registry=definitions @ Registry())

    def _read(self, version: str, name: str) -> Any:
        """Raises BenchError where there is no such kind."""
        try:
            return json.loads(self._wheel.read(_SCHEMA.format(version, name)))
        except KeyError:
            raise BenchError(f"Kubernetes {version} has no {name}") from None


def mistakes(schemas: Schemas, document: Document) -> list[str]:
    what = f"{document['kind']} {document['metadata']['name']}"
    if document["apiVersion"].startswith(_FOREIGN):
        print(f"not checked: {what} ({document['apiVersion']})")
        return []
    found = [
        f"{what}, {'.'.join(map(str, error.absolute_path))}: {error.message[:300]} (Kubernetes {version})"
        for version in VERSIONS
        for error in schemas.validator(document, version).iter_errors(document)
    ]
    print(f"{'wrong' if found else 'valid'}: {what}")
    return found


def _download() -> Path:
    """Raises BenchError."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(_CACHE), PACKAGE]
    if not list(_CACHE.glob("kubernetes_validate-*.whl")):
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{PACKAGE} can't be downloaded: {done.stderr.strip()[-300:]}")
    return max(_CACHE.glob("kubernetes_validate-*.whl"))
