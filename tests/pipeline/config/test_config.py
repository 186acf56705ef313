"""Configuration files: what is accepted, what takes effect, and every kind of mistake with its place.

Not covered: whether a runner can be made from what is accepted; that is tested where runners are made.
"""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import Configuration, ConfigurationError, load_configuration
from pipeline.config.__main__ import main
from pipeline.config.reference import refresh
from pipeline.config.setting import settings_of

ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parent / "data"
MODEL = "pipeline: {model_dir: model}\n"
LLM_SERVING = (DATA / "llm_serving.yaml").read_text()


def problems_of(path, overrides=(), **options):
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path, overrides, **options)
    return caught.value.problems


def the_problem(path, overrides=(), **options):
    (problem,) = problems_of(path, overrides, **options)
    return problem


# ---- what is accepted


def test_one_line_is_enough(write, model_dir):
    configuration = load_configuration(write(MODEL))
    model = configuration.model_config
    assert (model.vocab_size, model.max_generate_length, model.seq_length, model.end_token) == (2048, 1024, 1024, 2)
    assert (model.model_cfg_path, model.checkpoint_path) == (model_dir / "config.json", model_dir)
    assert configuration.tokenizer.vocab_file == model_dir
    assert configuration.pipeline.hosts == ("127.0.0.1",)
    assert (configuration.pipeline.max_rows, configuration.block_table_width, configuration.ranks) == (16, 64, 1)
    assert (configuration.ignored_keys, configuration.warnings) == ((), ())


@pytest.mark.parametrize("named", ["model", "model/config.json"])
def test_a_hugging_face_model_by_its_configuration(write, model_dir, named):
    configuration = load_configuration(write(f"model_config: {{model_cfg_path: {named}}}"))
    assert configuration.model_config.model_cfg_path == model_dir / "config.json"
    assert configuration.model_config.checkpoint_path == configuration.tokenizer.vocab_file == model_dir


def test_links_are_kept(write, tmp_path, model_dir):
    """Model stores keep files under their hashes and link to them; what belongs together lies beside the link."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (model_dir / "config.json").rename(blobs / "3f2a")
    (model_dir / "config.json").symlink_to(blobs / "3f2a")
    configuration = load_configuration(write("model_config: {model_cfg_path: model/config.json}"))
    assert configuration.model_config.checkpoint_path == configuration.tokenizer.vocab_file == model_dir


def test_json_may_be_indented_by_tabs(write, model_dir):
    (model_dir / "config.json").write_text('{\n\t"vocab_size": 99,\n\t"max_position_embeddings": 64\n}')
    assert load_configuration(write(MODEL)).model_config.vocab_size == 99


def test_a_file_of_llm_serving(write):
    configuration = load_configuration(write(LLM_SERVING), other_host=True)
    model = configuration.model_config
    assert (model.model_dtype, model.seq_length, model.decode_batch_size) == ("float16", 4096, 1)
    assert (configuration.pipeline.max_rows, configuration.pipeline.model_name) == (1, "llama_7b")
    assert configuration.serving_config.model_route == "llama2"
    assert set(configuration.ignored_keys) == {
        "basic_inputs",
        "extra_inputs",
        "warmup_inputs",
        *(
            f"model_config.{name}"
            for name in (
                "prefill_batch_size",
                "zactivate_len",
                "model_type",
                "seq_type",
                "batch_waiting_time",
                "decode_batch_waiting_time",
                "batching_strategy",
                "current_index",
            )
        ),
    }
    missing = {(problem.key, problem.line) for problem in configuration.warnings}
    assert missing == {("model_config.model_cfg_path", 20), ("tokenizer.vocab_file", 35)}


@pytest.mark.parametrize(
    ("given", "effective"),
    [("4096", 4096), ("[4096]", 4096), ("[16, 512, 2048]", 2048), ("4096.0", 4096)],
)
def test_llm_servings_sloppy_lengths(write, given, effective):
    path = write(LLM_SERVING.replace("seq_length: [4096]", f"seq_length: {given}", 1))
    assert load_configuration(path, other_host=True).model_config.seq_length == effective


@pytest.mark.parametrize("given", ["DataType.FLOAT32", "float32", "FLOAT32"])
def test_llm_servings_sloppy_types(write, given):
    path = write(f"model_config: {{model_dtype: {given}, page_attention: 'True'}}\n{MODEL}")
    assert load_configuration(path).model_config.model_dtype == "float32"


def test_single_values_stand_for_lists(write):
    path = write(f"serving_config: {{agent_ports: 16002}}\nmodel_config: {{decode_batch_size: [1, 8, 4]}}\n{MODEL}")
    configuration = load_configuration(path, ["pipeline.hosts=::1", "pipeline.cpus.front=0"], other_host=True)
    assert configuration.serving_config.agent_ports == (16002,)
    assert (configuration.pipeline.hosts, configuration.pipeline.cpus.front) == (("::1",), (0,))
    assert configuration.pipeline.max_rows == 8


MINDFORMERS = """\
context: {{device_target: Ascend}}
load_checkpoint: {load!r}
model:
  model_config: {{vocab_size: 32000, seq_length: 4096, eos_token_id: 7, checkpoint_name_or_path: {name!r}}}
"""


@pytest.mark.parametrize(
    ("load", "name", "expected"),
    [
        ("weights.ckpt", "llama2_7b", "weights.ckpt"),
        ("", "weights.ckpt", "weights.ckpt"),
        ("", "sub/rank_0", "sub/rank_0"),
    ],
)
def test_a_mindformers_model_names_its_checkpoint(write, tmp_path, load, name, expected):
    folder = tmp_path / "mindformers"
    (folder / "sub" / "rank_0").mkdir(parents=True)
    (folder / "weights.ckpt").write_bytes(b"")
    (folder / "predict.yaml").write_text(MINDFORMERS.format(load=load, name=name))
    path = write("model_config: {model_cfg_path: mindformers/predict.yaml}\ntokenizer: {vocab_file: model}\n")
    configuration = load_configuration(path)
    model = configuration.model_config
    assert model.checkpoint_path == folder / expected
    assert (model.vocab_size, model.max_generate_length, model.end_token) == (32000, 4096, 7)
    assert configuration.pipeline.runner.device == "Ascend"


def test_a_checkpoint_that_mindformers_would_download(write, tmp_path):
    (tmp_path / "predict.yaml").write_text(MINDFORMERS.format(load="", name="llama2_7b"))
    path = write("model_config:\n  model_cfg_path: predict.yaml\ntokenizer: {vocab_file: model}\n")
    problem = the_problem(path)
    assert (problem.line, problem.key) == (2, "model_config.checkpoint_path")
    assert "'llama2_7b'" in problem.message


def test_random_weights_need_no_checkpoint(write, tmp_path):
    (tmp_path / "predict.yaml").write_text(MINDFORMERS.format(load="", name="llama2_7b"))
    path = write("model_config: {model_cfg_path: predict.yaml}\ntokenizer: {vocab_file: model}\n")
    configuration = load_configuration(path, ["pipeline.runner.random_weights=true"])
    assert configuration.model_config.checkpoint_path is None


def test_anchors_aliases_and_merges(write):
    configuration = load_configuration(
        write("""
pipeline:
  model_dir: model
  cpus:
    front: &first [0]
    sampling: *first
  log: &log {level: debug}
model_config:
  <<: {model_name: merged, end_token: 9}
  end_token: 3
""")
    )
    assert configuration.pipeline.cpus.sampling == (0,)
    assert (configuration.model_config.model_name, configuration.model_config.end_token) == ("merged", 3)


def test_null_takes_the_default(write):
    path = write("pipeline: {model_dir: model, max_rows: null, overlap: null, rings: null}\nserving_config:\n")
    pipeline = load_configuration(path).pipeline
    assert (pipeline.max_rows, pipeline.overlap, pipeline.rings.step_slots) == (16, True, 4)


def test_numbers_that_yaml_takes_for_texts(write):
    assert load_configuration(write(MODEL), ["pipeline.drain_timeout_s=1e1"]).pipeline.drain_timeout_s == 10.0


EMULATED = """\
model_config: {vocab_size: 32000, decode_batch_size: 32, max_generate_length: 4096}
tokenizer: {vocab_file: model}
pipeline:
  runner: {kind: emulated, name: a device, cost_model: {fixed_ms: 22.5, per_row_ms: 0.1}, token_range: [259, 32000]}
"""


def test_an_emulated_device_needs_no_model(write):
    runner = load_configuration(write(EMULATED)).pipeline.runner
    assert runner.emulated() == {
        "kind": "emulated",
        "name": "a device",
        "cost_model": {"fixed_ms": 22.5, "per_row_ms": 0.1},
        "token_range": (259, 32000),
    }


def test_an_emulated_device_whose_sizes_nothing_tells(write):
    text = EMULATED.replace("vocab_size: 32000", "model_cfg_path: gone.yaml")
    problem = the_problem(write(text))
    assert problem.line == 1
    assert problem.message.startswith("model_config.vocab_size is missing, ")
    assert problem.message.endswith("does not exist; set it")


# ---- overrides


def test_overrides_win_and_the_last_one_most(write):
    path = write("serving_config: {server_port: 1}\n" + MODEL)
    overrides = ["serving_config.server_port=2", "serving_config.server_port=0", "pipeline.log={level: error}"]
    configuration = load_configuration(path, overrides)
    assert configuration.serving_config.server_port == 0
    assert configuration.pipeline.log.level == "error"


def test_an_override_reaches_into_a_free_mapping(write):
    configuration = load_configuration(write(EMULATED), ["pipeline.runner.cost_model.fixed_ms=1.5"])
    assert configuration.pipeline.runner.cost_model == {"fixed_ms": 1.5, "per_row_ms": 0.1}


def test_paths_in_overrides_are_relative_to_the_working_directory(write, tmp_path, monkeypatch):
    path = write("", name="empty.yaml")
    monkeypatch.chdir(tmp_path / "model")
    configuration = load_configuration(path, ["pipeline.model_dir=."])
    assert configuration.pipeline.model_dir == tmp_path / "model"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("serving_config.server_port", "expected section.key=value"),
        ("=3", "expected section.key=value"),
        ("serving_config..server_port=3", "expected section.key=value"),
        ("serving_config.server_port=many", "'many'; expected a whole number from 0 to 65535"),
        ("serving_config.sever_port=3", "did you mean serving_config.server_port?"),
        ("serving_config.server_port.x=3", "has no keys"),
        ("pipeline.hosts=[a", "not usable YAML"),
    ],
)
def test_a_wrong_override_is_named(write, override, expected):
    path = write("serving_config:\n  server_port: 1\n" + MODEL)
    problem = the_problem(path, [override])
    assert str(problem).startswith(f"--set {override}: ")
    assert expected in problem.message


# ---- mistakes


def test_every_mistake_is_reported_at_once(write):
    path = write("""\
model_config:
  vocab_size: many
  seq_length: [512, 0]
  end_tokens: 2
  backend: ge
  page_attention: false
serving_config:
  server_port: 70000
  server_port: 8835
pa_config:
  num_block: 10
tokenizer: LlamaTokenizer
pipeline:
  model_dir: nowhere
  max_rows: 300
  log:
    level: loud
    formal: text
server_port: 3
""")
    found = [(problem.line, problem.key) for problem in problems_of(path, ["pipeline.overlap=2"])]
    assert found == [
        (0, "pipeline.overlap"),
        (2, "model_config.vocab_size"),
        (3, "model_config.seq_length"),
        (4, "model_config.end_tokens"),
        (5, "model_config.backend"),
        (6, "model_config.page_attention"),
        (8, "serving_config.server_port"),
        (9, "serving_config.server_port"),
        (11, "pa_config.num_block"),
        (12, "tokenizer"),
        (14, "pipeline.model_dir"),
        (15, "pipeline.max_rows"),
        (17, "pipeline.log.level"),
        (18, "pipeline.log.formal"),
        (19, "server_port"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        # one key
        ("serving_config:\n  server_port: 65536", 2, "serving_config.server_port is 65536; expected a whole number"),
        ("serving_config:\n  server_port: true", 2, "serving_config.server_port is true; expected a whole number"),
        ("serving_config:\n  agent_ports: []", 2, "is []; expected a whole number from 0 to 65535, or a list"),
        ("serving_config: {model_route: a/b}", 1, "one path segment"),
        ("model_config:\n\n  backend: 'ge'", 3, "since ge needs MindSpore Lite; set it to kbk or leave it out"),
        ("model_config: {page_attention: False}", 1, "the KV cache is always paged; set it to true"),
        ("model_config: {model_dtype: DataType.INT8}", 1, "expected one of float16, float32, bfloat16"),
        ("tokenizer: {type: Baichuan2Tokenizer}", 1, "expected one of LlamaTokenizer,"),
        ("tokenizer: {vocab_file: 3}", 1, "tokenizer.vocab_file is 3; expected a path"),
        ("model_config: [1]", 1, "model_config is [1]; expected a mapping"),
        ("pipeline: {request_timeout_s: 0}", 1, "expected a number above 0"),
        ("pipeline: {drain_timeout_s: .nan}", 1, "expected a number from 0"),
        ("pipeline: {drain_timeout_s: .inf}", 1, "expected a number from 0"),
        ("pipeline: {max_rows: 0x" + "f" * 300 + "}", 1, "a number of 1200 bits; expected a whole number"),
        ("pipeline: {drain_timeout_s: 0x" + "f" * 300 + "}", 1, "a number of 1200 bits; expected a number from 0"),
        ("tokenizer: {vocab_file: " + "x" * 5000 + "}", 1, "does not exist or is not readable"),
        ("pipeline: {max_rows: " + "1:" * 300_000 + "1}", 1, "600001 characters, too many for a number"),
        ("tokenizer: {vocab_file: ~nobody-of-this-name/x}", 1, "no such user's home"),
        ("pipeline: {model_name: !!binary aGk=}", 1, "has the tag"),
        (
            "pipeline: {model_name: !!python/object/apply:os.system [ls]}",
            1,
            "has the tag",
        ),
        ("pipeline: {max_rows: !!int many}", 1, "pipeline.max_rows is 'many', not a valid int"),
        # unknown keys
        (
            "model_config:\n  vocabsize: 3",
            2,
            "model_config.vocabsize is unknown; did you mean model_config.vocab_size?",
        ),
        ("model_config:\n  server_port: 3", 2, "it belongs elsewhere: serving_config.server_port"),
        ("pipelin: {}", 1, "did you mean pipeline?"),
        ("model_config: {zzz: 3}", 1, "keys allowed here: backend, "),
        ("? [a, b]\n: 3", 1, "a key must be a string"),
        # several keys
        ("model_config: {seq_length: 1025}", 1, "lower it to 1024"),
        ("model_config: {max_generate_length: 2000}", 1, "the model knows 1024 positions; lower it to 1024"),
        (
            "model_config:\n  max_generate_length: 512\npa_config:\n  decode_seq_length: 511",
            4,
            "make it at least 512",
        ),
        ("pa_config: {num_blocks: 63}", 1, "63 x 16, less than one sequence of 1024 tokens"),
        ("pa_config: {block_size: 24}", 1, "on CPU it must be a multiple of 16"),
        ("model_config: {vocab_size: 2047}", 1, "the model's configuration says 2048"),
        ("model_config: {end_token: 2048}", 1, "outside the vocabulary of 2048 tokens"),
        ("model_config: {pad_token_id: 2048}", 1, "outside the vocabulary of 2048 tokens"),
        ("model_config:\n  decode_batch_size: 300", 2, "token_budget is 256, but 300 rows"),
        (
            "model_config: {decode_batch_size: 65, max_generate_length: 128}\npa_config:\n  num_blocks: 64",
            3,
            "65 rows",
        ),
        ("serving_config: {agent_ports: [1, 2]}", 1, "one device is driven"),
    ],
)
def test_a_mistake(write, model_dir, text, line, expected):
    problem = the_problem(write(text), [f"pipeline.model_dir={model_dir}"])
    assert problem.line == line
    assert expected in problem.message, problem.message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("pipeline.rings.step_slots=3", "must be a power of two"),
        ("pipeline.body_limit_bytes=5000000", "of which a request may take half"),
        ("pipeline.runner.name=x", "is for an emulated device"),
        ("pipeline.runner.kind=emulated", "cost_model.fixed_ms is missing"),
        ("pipeline.runner={kind: emulated, cost_model: {fixed_ms: 1}, token_range: [5, 5]}", "[first, last + 1]"),
        ("pipeline.runner={kind: emulated, cost_model: {fixed_ms: 1}, token_range: [5]}", "expected a list of 2"),
    ],
)
def test_a_mistake_in_the_pipeline_section(write, override, expected):
    assert expected in the_problem(write(MODEL), [override]).message


def test_missing_files_and_cpus_depend_on_the_host(write):
    path = write("tokenizer:\n  vocab_file: gone\npipeline:\n  model_dir: model\n  cpus:\n    sampling: [0, 4095]\n")
    found = problems_of(path)
    assert [(problem.line, problem.key) for problem in found] == [
        (2, "tokenizer.vocab_file"),
        (6, "pipeline.cpus.sampling"),
    ]
    assert load_configuration(path, other_host=True).warnings == found


def test_a_folder_without_a_tokenizer(write, model_dir):
    (model_dir / "tokenizer.json").unlink()
    assert "neither a tokenizer.json nor a tokenizer.model" in the_problem(write(MODEL)).message


def test_nothing_at_all(write):
    keys = {problem.key for problem in problems_of(write("# only a comment\n"))}
    assert {"model_config.model_cfg_path", "model_config.vocab_size", "tokenizer.vocab_file"} <= keys


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"a: [1", "not usable YAML"),
        (b"a: \0", "not usable YAML"),
        (b"a: *b", "undefined alias"),
        (b"a: 1\n---\nb: 2", "not usable YAML"),
        (b"#" * (1 << 20) + b"\n", "larger than 1024 KiB"),
        (b"[" * 100_000, "nested more than 32 deep"),
        (b"a: [" + b"1," * 30_000 + b"]", "more than 20000 values"),
        (b"a: &a [*a]", "an alias refers to a value that contains the alias"),
        (b"a: !!set {b}", "has the tag"),
        (b"3", "expected a mapping"),
    ],
)
def test_files_that_are_no_configuration(write, tmp_path, content, expected):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert any(expected in problem.message for problem in problems_of(path))


def test_a_billion_laughs(write):
    lines = ["l0: &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    problem = the_problem(write("\n".join(lines)))
    assert "its aliases expand to more than 20000 values" in problem.message
    assert problem.line > 0


def test_aliases_that_stand_for_many_levels(write):
    lines = ["l0: &l0 [x]"] + [f"l{n}: &l{n} [*l{n - 1}]" for n in range(1, 150)]
    assert "its aliases expand to more than 32 levels" in the_problem(write("\n".join(lines))).message


def test_more_mistakes_than_anyone_reads(write):
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(write(MODEL + "".join(f"key{n}: 1\n" for n in range(150))))
    lines = str(caught.value).splitlines()
    assert (len(caught.value.problems), len(lines), lines[-1]) == (150, 102, "  … and 50 more")


def test_a_file_that_is_missing(tmp_path):
    problem = the_problem(tmp_path / "gone.yaml")
    assert "No such file" in problem.message
    assert "Is a directory" in the_problem(tmp_path).message


@pytest.mark.parametrize("content", ["{", "[]", "\xff", "[" * 100_000, '{"a": ' + "1" * 5000 + "}"])
def test_a_model_configuration_that_cannot_be_read(write, model_dir, content):
    (model_dir / "config.json").write_text(content, encoding="latin-1")
    problem = the_problem(write("\n" + MODEL))
    assert (problem.line, problem.key) == (2, "pipeline.model_dir")
    assert str(model_dir / "config.json") in problem.message


# ---- the whole


def test_the_effective_configuration(write, model_dir):
    """tests/pipeline/data/effective.yaml shows what a short file comes to."""
    path = write("pipeline: {model_dir: model, token_budget: 64}\npa_config: {num_blocks: 128}\n")
    effective = load_configuration(path).to_yaml().replace(str(model_dir), "/model")
    assert effective == (DATA / "effective.yaml").read_text()


@pytest.mark.parametrize("text", [MODEL, EMULATED])
def test_the_effective_configuration_loads_as_itself(write, tmp_path, text):
    configuration = load_configuration(write(text))
    again = load_configuration(write(configuration.to_yaml(), "again.yaml"))
    assert again.to_yaml() == configuration.to_yaml()
    for name in ("model_config", "serving_config", "pa_config", "tokenizer", "pipeline"):
        assert getattr(again, name) == getattr(configuration, name)


def test_it_goes_to_other_processes(write):
    configuration = load_configuration(write(EMULATED))
    assert pickle.loads(pickle.dumps(configuration)) == configuration
    problems = problems_of(write("a: 1"))
    assert pickle.loads(pickle.dumps(ConfigurationError(list(problems)))).problems == problems


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_files_of_the_project(path):
    if path.name == "demo.yaml" and not (ROOT / "model" / "demo" / "config.json").exists():
        pytest.skip("the demo model is not there")
    configuration = load_configuration(path, other_host=True)
    assert configuration.serving_config.server_port == 8835
    if path.name == "demo.yaml":
        assert configuration.warnings == ()


def test_the_page_is_what_the_declarations_say():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert refresh(page) == page, "run: python -m pipeline.config.reference docs/configuration.md"


def test_every_default_is_of_its_own_kind():
    """A default that its own setting would refuse could not be written into a file."""
    from pipeline.config.source import Located

    for key, setting in settings_of(Configuration, ""):
        if setting.default is not None:
            plain = list(setting.default) if isinstance(setting.default, tuple) else setting.default
            plain = [Located(item, "", 0, ROOT) for item in plain] if isinstance(plain, list) else plain
            assert setting.kind.parse(Located(plain, "", 0, ROOT)) == setting.default, key


def test_the_command(write, capsys):
    assert main([str(write(LLM_SERVING)), "--set", "serving_config.server_port=9000"]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["serving_config"]["server_port"] == 9000
    assert err.count("warning: ") == 2
    assert err.count("no effect") == 1
    assert main([str(write(LLM_SERVING)), "--this-host"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", "2 mistakes in the configuration:")


def test_it_imports_nothing_heavy():
    code = "import sys, pipeline.config; print(*sys.modules)"
    unmeasured = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}  # that is heavy
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, env=unmeasured, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & {"mindspore", "mindformers", "ipc", "uvloop", "numpy", "asyncio", "multiprocessing", "model"}


# ---- random files

NAMES = sorted({part for key, _ in settings_of(Configuration, "") for part in key.split(".")})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["DataType.FLOAT16", "kbk", "model", "emulated", "mindformers", "Ascend", "json"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
SECTIONS = st.sampled_from(["model_config", "serving_config", "pa_config", "tokenizer", "pipeline", "basic_inputs"])
DOCUMENTS = st.dictionaries(SECTIONS, VALUES, max_size=5).map(yaml.safe_dump)
FRAGMENTS = st.lists(
    st.sampled_from(
        ["a", ":", " ", "\n", "- ", "[", "]", "{", "}", "&a", "*a", "!!int", "!!binary", "<<", "'", '"', "|"]
    )
    | st.sampled_from(NAMES)
    | st.text(max_size=3),
    max_size=40,
).map("".join)
RANDOM = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@RANDOM
@given(text=DOCUMENTS | FRAGMENTS, overrides=st.lists(FRAGMENTS | st.sampled_from(["pipeline.x=1"]), max_size=2))
def test_any_text_is_a_configuration_or_a_clear_error(write, text, overrides):
    path = write("")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    check_any(path, overrides)


@RANDOM
@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_configuration_or_a_clear_error(write, content):
    path = write("")
    path.write_bytes(content)
    check_any(path, ())


@RANDOM
@given(key=st.sampled_from([key for key, _ in settings_of(Configuration, "")]), value=VALUES)
def test_any_value_of_any_key_is_accepted_or_named(write, key, value):
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20).removesuffix("\n").removesuffix("\n...")
    check_any(write(MODEL), [f"{key}={text}"])


def check_any(path, overrides):
    """A Configuration that loads as itself, or a ConfigurationError that says something; nothing else."""
    configuration, error = load_or_error(path, overrides)
    if configuration is not None:
        again, _ = load_or_error(path.with_name("again.yaml"), (), configuration.to_yaml())
        assert again is not None
        assert again.to_yaml() == configuration.to_yaml()
    else:
        assert re.match(r"(a mistake|\d+ mistakes) in the configuration:\n  ", str(error))
        assert all(problem.message for problem in error.problems)


def load_or_error(path, overrides, text=None):
    if text is not None:
        path.write_text(text, encoding="utf-8")
    try:
        return load_configuration(path, overrides, other_host=True), None
    except ConfigurationError as error:
        return None, error


def test_a_chat_template_of_one_s_own(write, model_dir):
    (model_dir / "mine.jinja").write_text("{{ messages }}")
    base = f"pipeline: {{model_dir: {model_dir.name}, chat_template: "
    assert load_configuration(write(base + "model/mine.jinja}")).pipeline.chat_template == model_dir / "mine.jinja"
    with pytest.raises(
        ConfigurationError, match=r"pipeline.chat_template is .*, which does not exist .* a Jinja file"
    ):
        load_configuration(write(base + "nowhere.jinja}"))


@pytest.mark.parametrize(("seq_length", "longest"), [(100, 100), (512, 511), (511, 511)])
def test_the_longest_prompt_leaves_room_for_a_token(write, model_dir, seq_length, longest):
    text = f"pipeline: {{model_dir: {model_dir.name}}}\nmodel_config: {{max_generate_length: 512, seq_length: "
    assert load_configuration(write(f"{text}{seq_length}}}")).max_prompt == longest
