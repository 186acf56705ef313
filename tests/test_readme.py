"""The README's examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def code_blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_ring_example(tmp_path):
    parent, child = (block for block in code_blocks("README.md", "python") if "STEP" in block)
    layout = next(line for line in parent.splitlines() if line.startswith("STEP ="))
    (tmp_path / "child.py").write_text(f"import sys, ipc\n{layout}\n{child}")
    done = subprocess.run(
        [sys.executable, "-c", f"{parent}\nraise SystemExit(child.wait(20))"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, f"{7 * 32}\n"), done.stderr


def test_every_command_in_the_readme_is_a_target():
    makefile = (ROOT / "Makefile").read_text()
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"make ([a-z][a-z0-9-]*)", (ROOT / page).read_text()):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page}: make {target}"
