"""Every mistake is found, each at its place."""

from __future__ import annotations

from tests.pipeline.config.helpers import problems_of


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


def test_nothing_at_all(write):
    keys = {problem.key for problem in problems_of(write("# only a comment\n"))}
    assert {"model_config.model_cfg_path", "model_config.vocab_size", "tokenizer.vocab_file"} <= keys
