"""The Dockerfile and the Kubernetes manifests, tried out without a container engine or a cluster.

    python -m scripts.verify.deployment                       all of it
    python -m scripts.verify.deployment --parts manifests     their form, against the published schemas
    python -m scripts.verify.deployment --parts image,pods    the image is built, started, and run as the pods would

Of the kernel's means the image gets what an engine would give it: a root, mounts, processes and a network of its own,
a user without capabilities. Downloads what the Dockerfile does. Needs root and mmdebstrap for the image.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.lab.arguments import parser, say
from scripts.lab.errors import BenchError
from scripts.lab.processes import exit_when_told
from scripts.verify.deployment.containers import try_image, try_pods
from scripts.verify.deployment.image import build, faults_of
from scripts.verify.deployment.manifests import ROOT, check_manifests
from scripts.verify.deployment.network import leave_network
from scripts.verify.deployment.roots import require

PARTS = ("manifests", "image", "pods")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where something is wrong."""
    made = parser(__doc__)
    made.add_argument("--parts", default=",".join(PARTS), metavar="PARTS", help="of manifests, image and pods")
    made.add_argument("--schemas", type=Path, metavar="FILE", help="a wheel of kubernetes-validate")
    made.add_argument("--folder", type=Path, default=ROOT / ".cache/deployment", help="for roots; they are deleted")
    options = made.parse_args(arguments)
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        made.error(f"--parts {','.join(unknown)}: of {', '.join(PARTS)} expected")
    exit_when_told()
    try:
        found = check_manifests(options.schemas) if "manifests" in parts else []
        if {"image", "pods"} & set(parts):
            found += _tried(options.folder.absolute(), parts)
    except (BenchError, OSError) as error:
        print(f"deployment: {error}", file=sys.stderr)
        return 1
    print(*(found or [f"{', '.join(parts)}: nothing is wrong"]), sep="\n")
    return int(bool(found))


def _tried(folder: Path, parts: Sequence[str]) -> list[str]:
    """Raises BenchError."""
    require()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        image = build(folder)
        found = faults_of(image)
        leave_network()
        for part, attempt in (("image", try_image), ("pods", try_pods)):
            if part in parts:
                say(f"trying the {part}")
                found += attempt(image, _fresh(folder / part))
        return found
    finally:
        for root in folder.glob("stage-*"):
            shutil.rmtree(root, ignore_errors=True)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
