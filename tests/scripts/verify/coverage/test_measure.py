"""What is reached, in processes that are started, forked and killed; and that marks change nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from textwrap import dedent

import pytest

from scripts.verify.coverage import __main__ as command
from scripts.verify.coverage.measure import Measured, environment

MODULE = '''
    """What it is."""
    from __future__ import annotations
    from typing import TYPE_CHECKING
    import os, signal, sys

    if TYPE_CHECKING:
        import nothing

    def never():
        one = 1
        return one

    def choose(which: Some) -> str:
        """Its own words."""
        if which == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif which == "raise":
            raise ValueError(which)
        else:
            for _ in range(2):
                continue
            with open(os.devnull):
                return "left"
            never()
        return "end"

    class Thing:
        """A thing."""
        value: int = 3

        async def wait(self):
            match self.value:
                case 3:
                    return "three"
                case _:
                    return "other"

    if __name__ == "__main__":
        choose(sys.argv[1])
'''  # fmt: skip
IMPORTED = 2 + 3 + 2  # imports, definitions, what is in the class; the rest is left out
CHOSEN = {"kill": 2, "raise": 3, "leave": 6}
STATEMENTS = IMPORTED + 2 + 10 + 3  # and in the functions


@pytest.fixture
def project(tmp_path):
    """A package with one module, and a folder for its measure."""
    package = tmp_path / "root" / "one"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "module.py").write_text(dedent(MODULE))
    return package.parent, tmp_path


def run(project, code_or_module, *arguments):
    root, folder = project
    how = ("-m", code_or_module) if " " not in code_or_module else ("-c", code_or_module)
    return subprocess.run(
        [sys.executable, *how, *arguments], env=os.environ | environment(folder), cwd=root,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def reached(measured):
    found, total = measured.reached()["one/module.py"]
    assert total == STATEMENTS
    return found


@pytest.fixture
def measured(project):
    return Measured(project[0], ["one"], project[1])


@pytest.mark.parametrize(("which", "status"), [("kill", -9), ("raise", 1), ("leave", 0)])
def test_what_a_process_reaches_counts_however_it_ends(project, measured, which, status):
    assert run(project, "one.module", which).returncode == status
    assert reached(measured) == IMPORTED + CHOSEN[which]


def test_what_several_processes_reach_is_added_up(project, measured):
    program = """
import os, one.module
if os.fork() == 0:
    one.module.choose('leave')
    os._exit(0)
os.wait()
import subprocess, sys
subprocess.run([sys.executable, '-m', 'one.module', 'kill'])
"""
    assert run(project, program).returncode == 0
    assert reached(measured) == IMPORTED + CHOSEN["leave"] + 1


def test_lines_and_docstrings_are_as_without(project, measured):
    program = """
import json, one.module as m
told = [m.__doc__, m.choose.__doc__, m.choose.__annotations__, m.choose.__code__.co_firstlineno, m.Thing.__doc__]
print(json.dumps(told))
"""
    found = json.loads(run(project, program).stdout)
    lines = dedent(MODULE).splitlines()
    assert found[:3] == ["What it is.", "Its own words.", {"which": "Some", "return": "str"}]
    assert lines[found[3] - 1].startswith("def choose")
    assert found[4] == "A thing."
    where = lines.index("        raise ValueError(which)") + 1
    assert f"line {where}, in choose" in run(project, "one.module", "raise").stderr


def test_a_file_that_was_changed_since_is_not_measured(project, measured):
    file = project[0] / "one" / "module.py"
    file.write_text("print('changed')")
    assert run(project, "one.module").stdout == "changed\n"
    assert reached(measured) == 0


def test_the_status_is_the_commands_or_the_floors(project, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(command, "ROOT", project[0])
    monkeypatch.setattr(command, "PACKAGES", ["one"])
    monkeypatch.setattr(command, "EXCEPTIONS", {})
    monkeypatch.chdir(project[0])

    def status(*options, code="import one.module"):
        monkeypatch.setattr(sys, "argv", ["coverage", *options, sys.executable, "-c", code])
        return command.main()

    assert status(code="raise SystemExit(3)") == 3
    assert status(code="raise SystemExit(5)") == 5
    assert status("--json", str(tmp_path / "json")) == 1
    assert "one/module.py: tests reach 32 % of its statements" in capfd.readouterr().out
    percent = json.loads((tmp_path / "json").read_text())
    assert percent == {
        "one/module.py": pytest.approx(100 * IMPORTED / STATEMENTS)
    }  # and no module without statements
