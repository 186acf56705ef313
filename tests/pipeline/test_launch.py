"""The command lines: `python -m pipeline.launch` and `ringserve`."""

from __future__ import annotations

import os
import re
import shutil
from importlib.metadata import entry_points, version

import pytest
import yaml

import ipc
from model.demo import DEMO_DIR
from pipeline import launch
from pipeline.launcher.api_keys import digest, load_api_keys
from scripts.lab.paths import ROOT
from tests.model.adapters.folders import Lora
from tests.model.families import checkpoints as families

DEMO = str(ROOT / "configs" / "demo.yaml")


def test_ringserve_is_installed():
    (command,) = entry_points(group="console_scripts", name="ringserve")
    assert command.load() is launch.ringserve


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        launch.ringserve(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {name} " in text for name in ("serve", "doctor", "config"))
    assert "checkout" in text


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        launch.ringserve(["--version"])
    assert capsys.readouterr().out == f"ringserve {version('ringserve')}\n"


@pytest.mark.parametrize("arguments", [["serve", "--config", DEMO, "--check"], ["config", DEMO]])
def test_both_ways_print_the_same_configuration(arguments, capsys):
    assert launch.ringserve(arguments) == 0
    printed = capsys.readouterr().out
    assert launch.main(["--config", DEMO, "--check"]) == 0
    assert capsys.readouterr().out == printed
    assert "model_config:" in printed


def test_the_check_tells_the_shared_memory(capsys, monkeypatch):
    assert launch.main(["--config", DEMO, "--check"]) == 0
    assert re.match(
        r"12\.9 MiB of shared memory are taken from /dev/shm, where [0-9.]+ MiB are", capsys.readouterr().err
    )
    shm = ipc.MemoryLeft(1 << 20, "/dev/shm has 1 MiB in all", "enlarge it")
    monkeypatch.setattr(ipc.segment, "shared_memory_left", lambda _: shm)
    assert launch.main(["--config", DEMO, "--check"]) == 0
    assert "12.9 MiB of shared memory will be memfds: /dev/shm is too small, 1.0 MiB are" in capsys.readouterr().err


def test_a_wrong_configuration_is_status_2(capsys):
    assert launch.ringserve(["serve", "--config", DEMO, "--set", "pipeline.max_row=3"]) == 2
    assert "pipeline.max_row" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--ready-fd", "--exit-with-fd"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", "a descriptor from 3 on expected, not '2'"),
        ("-1", "expected, not '-1'"),
        ("x", "expected, not 'x'"),
        ("999999", "descriptor 999999 is not open"),
        ("9" * 30, "is not open"),
    ],
)
def test_descriptors_that_can_not_be_told(option, text, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        launch.main(["--config", DEMO, f"{option}={text}"])
    assert message in capsys.readouterr().err


def test_a_descriptor_for_reading_and_one_for_writing(capsys):
    read, write = os.pipe()
    try:
        for option, fd, needed in (("--ready-fd", read, "writing"), ("--exit-with-fd", write, "reading")):
            with pytest.raises(SystemExit, match="2"):
                launch.main(["--config", DEMO, option, str(fd)])
            assert f"{needed} is needed" in capsys.readouterr().err
    finally:
        os.close(read)
        os.close(write)


def test_a_folder_is_shown_as_the_file_that_starts_the_same(tmp_path, capsys):
    assert launch.ringserve(["serve", str(DEMO_DIR), "--engine", "mindspore", "--port", "0", "--print-config"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "# pa_config.num_blocks = 1024: room for 16 x 1024 tokens" in printed.out
    (tmp_path / "kept.yaml").write_text(printed.out)
    assert launch.main(["--config", str(tmp_path / "kept.yaml"), "--check"]) == 0
    kept = capsys.readouterr().out
    assert launch.main([str(DEMO_DIR), "--engine", "mindspore", "--port", "0", "--check"]) == 0
    checked = capsys.readouterr()
    assert checked.out == kept
    assert "\npa_config.num_blocks = 1024: room for 16 x 1024" in checked.err


def test_a_tokenizer_that_is_broken_is_one_line_before_any_stage_starts(tmp_path, capfd):
    shutil.copytree(DEMO_DIR, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    assert launch.main([str(tmp_path / "model"), "--port", "0"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert launch.main([str(tmp_path / "model"), "--check"]) == 0
    assert "warning: " + line.partition("start: ")[2] in capfd.readouterr().err
    assert "RingServe can't start: " in line
    assert "is not a tokenizer.json that tokenizers" in line


@pytest.mark.parametrize(
    ("given", "merged", "adapters"),
    [
        (["adapter"], "adapter", {}),
        (["./a=b"], "a=b", {}),
        (["a=adapter", "adapter", "org/b=./a=b"], "adapter", {"a": "adapter", "org/b": "a=b"}),
        ([], None, {}),
    ],
)
def test_adapters_of_the_command_line(given, merged, adapters, tmp_path, monkeypatch, capsys):
    for name in ("adapter", "a=b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    lora = [word for text in given for word in ("--lora", text)]
    assert launch.ringserve(["serve", str(DEMO_DIR), *lora, "--print-config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)["pipeline"]["lora"]
    assert found["merged"] == (merged and str(tmp_path / merged))
    assert found["adapters"] == {name: str(tmp_path / folder) for name, folder in adapters.items()}
    assert list(found["adapters"]) == list(adapters)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a=.", "a=.."], "--lora a=..: a is . already; choose another name"),
        ([".", ".."], "--lora ..: . is merged already; give both a name"),
        (["=."], "'' is no name that fits"),
        (["a="], "expected a path"),
        (["gone"], "/gone, which is not a folder; give one as PEFT writes it"),
        (["a=gone"], "pipeline.lora.adapters: a is /"),
    ],
)
def test_adapters_that_are_refused(given, message, capsys):
    lora = [word for text in given for word in ("--lora", text)]
    assert launch.main([str(DEMO_DIR), *lora]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "--lora" in error


def test_an_adapter_that_does_not_fit_is_one_line_before_any_stage_starts(tmp_path, capfd):
    """The check tells it, too."""
    base = families.load()["qwen2"].save(tmp_path / "base")
    for file in DEMO_DIR.glob("tokenizer*"):
        shutil.copy(file, base)
    Lora(families.load()["qwen2"]).save(tmp_path / "good")
    Lora(families.load()["gemma2"]).save(tmp_path / "other")
    given = ["--lora", f"a={tmp_path}/good", "--lora", f"b={tmp_path}/other", "--port", "0"]
    assert launch.main([str(base), *given]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert f"RingServe can't start: the adapter b: adapter {tmp_path}/other does not fit the model" in line
    assert launch.main([str(base), *given, "--check"]) == 0
    assert f"warning: the adapter b: adapter {tmp_path}/other does not fit" in capfd.readouterr().err
    assert launch.main([str(base), "--lora", str(tmp_path / "other")]) == 1
    assert "can't start: the adapter that is to be merged: adapter " in capfd.readouterr().err


def test_the_check_refuses_truncated_weights_and_says_what_it_did_not_read(tmp_path, capsys):
    shutil.copytree(DEMO_DIR, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    assert launch.main([str(tmp_path / "model"), "--check"]) == 0
    assert "fit the model; their values were not read" in capsys.readouterr().err
    weights.write_bytes(weights.read_bytes()[:-1])
    (tmp_path / "model" / "tokenizer.json").write_text("{}")  # a warning, which does not hide it
    assert launch.main([str(tmp_path / "model"), "--check"]) == 1
    assert f"RingServe can't start: {weights} is truncated: its header describes" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--check"], ["--print-config"]])
def test_names_that_are_not_utf8_are_refused_in_plain_words(options, tmp_path, capsys):
    folder = tmp_path / "mod\udcff"  # the byte FF
    folder.mkdir()
    for given in ([str(folder)], [str(DEMO_DIR), "--lora", f"a={folder}"], [str(DEMO_DIR), "--lora", str(folder)]):
        assert launch.main([*given, *options]) == 2
        printed = capsys.readouterr()
        assert "is not UTF-8; rename the file or folder" in printed.err
        assert printed.out == ""


def test_a_key_of_the_command_line_is_one_of_the_environment(monkeypatch):
    monkeypatch.setenv("RINGSERVE_API_KEY", "another")
    seen = []
    monkeypatch.setattr(launch, "_serve", lambda config, options: seen.append(load_api_keys(config)) or 0)
    assert launch.main([str(DEMO_DIR), "--api-key", "sk-1"]) == 0
    assert [[key.digest for key in keys] for keys in seen] == [[digest(b"sk-1")]]
