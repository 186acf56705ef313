"""PEFT folders to what is added to a decoder's weights: every family's folding, every setting, every refusal."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.adapters import model_weights, read_adapter
from model.checkpoint.weight import Weight
from model.errors import CheckpointError, ConfigurationError, UnusableWeightError
from model.families import Spec, canonical_weights, read_spec
from tests.model.adapters.folders import Lora
from tests.model.families.checkpoints import load
from tests.model.numpy_llama import write_safetensors

CHECKPOINTS = load()
QWEN2 = CHECKPOINTS["qwen2"]


def spec_of(lora: Lora) -> Spec:
    return read_spec(lora.checkpoint.config)


def require_merged(lora: Lora, folder: Path, tmp_path: Path) -> None:
    """What is added to the decoder's weights makes them those of the changed checkpoint."""
    spec, base = spec_of(lora), lora.checkpoint.save(tmp_path / "base")
    write_safetensors(tmp_path / "changed.safetensors", lora.merged())
    merged = model_weights(spec, base, folder)
    expected = canonical_weights(spec, tmp_path / "changed.safetensors")
    plain = canonical_weights(spec, base)
    different = 0
    for ours, theirs, before in zip(merged, expected, plain, strict=True):
        values = theirs.read(np.float32)
        assert ours.name == theirs.name
        np.testing.assert_allclose(ours.read(np.float32), values, atol=1e-5 * np.abs(values).max())
        different += not np.allclose(before.read(np.float32), values, atol=0.01)
    assert different >= len(lora.modules()) / 2  # gate and up are one


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_all_that_is_folded_into_weights_is_folded_into_adapters(name, tmp_path):
    lora = Lora(CHECKPOINTS[name])
    require_merged(lora, lora.save(tmp_path / "adapter"), tmp_path)


SOME = Lora(QWEN2, targets=("q_proj", "v_proj", "down_proj"))
QV = {"target_modules": ["q_proj", "v_proj"]}
FIRST_LAYER = tuple(f"model.layers.0.self_attn.{which}_proj" for which in "qv")


@pytest.mark.parametrize(
    "lora",
    [
        SOME,
        replace(SOME, targets=("gate_proj",)),  # a part of a fused weight
        replace(SOME, targets=("up_proj",), config={"target_modules": r".*\.up_proj"}),
        replace(SOME, prefix="base_model."),  # saved without the head
        replace(SOME, prefix="base_model.model.", infix="default."),
        replace(SOME, config={"lora_alpha": 6}, scales={"": 1.5}),
        replace(SOME, config={"lora_alpha": 6, "use_rslora": True}, scales={"": 6 / math.sqrt(4)}),
        replace(
            SOME,
            config={"rank_pattern": {"v_proj": 8, r"layers\.1\.self_attn\.q_proj": 2}, "use_rslora": True},
            ranks={"v_proj": 8, "1.self_attn.q_proj": 2},
            scales={"v_proj": 4 / math.sqrt(8), "1.self_attn.q_proj": 4 / math.sqrt(2), "": 2.0},
        ),
        replace(
            SOME,
            config={"alpha_pattern": {"^model.layers.0.mlp.down_proj": 2, "q_proj": 12}},
            scales={"layers.0.mlp.down_proj": 0.5, "q_proj": 3.0},
        ),
        replace(SOME, targets=FIRST_LAYER, config={**QV, "layers_to_transform": [0]}),
        replace(SOME, targets=FIRST_LAYER, config={**QV, "layers_to_transform": 0, "layers_pattern": "layers"}),
        replace(SOME, targets=FIRST_LAYER),
        replace(SOME, targets=FIRST_LAYER, config={**QV, "exclude_modules": r".*1.*"}),
        replace(
            SOME, config={"fan_in_fan_out": True, "new_key": None, "loftq_config": {}, "eva_config": {"rho": 2.0}}
        ),
        replace(SOME, config={"init_lora_weights": "gaussian", "target_modules": None}),
        Lora(QWEN2, config={"target_modules": "all-linear"}),
    ],
)
def test_settings(lora, tmp_path):
    require_merged(lora, lora.save(tmp_path / "adapter"), tmp_path)


def test_facts_of_a_folder(tmp_path):
    lora = replace(SOME, config={"rank_pattern": {"v_proj": 8}}, ranks={"v_proj": 8})
    adapter = read_adapter(lora.save(tmp_path / "one"), spec_of(lora))
    assert (adapter.folder, adapter.rank, len(adapter.fingerprint())) == (tmp_path / "one", 8, 32)
    assert set(adapter.changes) == {f"layers.{layer}.{name}" for layer in (0, 1) for name in ("q", "v", "down")}
    assert adapter.size_bytes == sum(array.nbytes for array in lora.tensors().values())
    assert read_adapter(lora.save(tmp_path / "same"), spec_of(lora)).fingerprint() == adapter.fingerprint()
    for name, other in {
        "scaled": replace(lora, config={**lora.config, "lora_alpha": 5}),
        "retrained": replace(lora, seed=1),
    }.items():
        assert read_adapter(other.save(tmp_path / name), spec_of(other)).fingerprint() != adapter.fingerprint()


def test_weights_of_bfloat16_become_float32_where_they_change(tmp_path):
    """And are added up exactly: bfloat16 would round most of a small change away."""
    lora, base = replace(SOME, targets=("down_proj",)), QWEN2.save(tmp_path / "base", bfloat16=True)
    spec = spec_of(lora)
    merged = model_weights(spec, base, lora.save(tmp_path / "adapter"))
    plain = {weight.name: weight for weight in canonical_weights(spec, base)}
    changed = [weight for weight in merged if not weight.keeps_bfloat16 and plain[weight.name].keeps_bfloat16]
    assert [weight.name for weight in changed] == [f"layers.{layer}.down.weight" for layer in (0, 1)]
    for layer, weight in enumerate(changed):
        a, b = lora.matrices(f"model.layers.{layer}.mlp.down_proj")
        before = plain[weight.name].read(np.float32)
        np.testing.assert_allclose(weight.read(np.float32), before + b @ a, atol=1e-6)


def test_what_does_not_fit_into_float16_when_it_is_added_is_refused(tmp_path):
    lora = replace(SOME, config={"lora_alpha": 1e6})
    weights = model_weights(spec_of(lora), QWEN2.save(tmp_path / "base"), lora.save(tmp_path / "adapter"))
    named = {weight.name: weight for weight in weights}
    with pytest.raises(UnusableWeightError, match=r"layers\.0\.q\.weight and what .*/adapter adds to it do not fit"):
        named["layers.0.q.weight"].read(np.float16)


def refused(lora: Lora, tmp_path: Path, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_adapter(lora.save(tmp_path / "adapter"), spec_of(lora))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; only LORA"),
        ({"use_dora": True}, "use_dora is True; DoRA also rescales .* merge the adapter with PEFT"),
        ({"bias": "all"}, "bias is 'all'; .* biases of the model itself: merge"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]; it comes with whole layers"),
        ({"init_lora_weights": "pissa_niter_4"}, "it changed the model's own weights: save it with .*conversion"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication is .*not supported: merge"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens is .*not supported"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices is"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters is"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"use_newest_trick": True}, "use_newest_trick is True; it is not known here"),
        ({"r": 0}, "r is 0; it must be a positive whole number"),
        ({"r": 513}, "r is 513; a rank must be a whole number from 1 to 512"),
        ({"rank_pattern": {"q_proj": 1024}}, r"rank_pattern\.q_proj is 1024; a rank must"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is .*must be an object of numbers"),
        ({"alpha_pattern": {"(": 2}}, r"alpha_pattern is .*'\(' is not a regular expression"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'; it must be a number"),
        ({"target_modules": "["}, "target_modules is '\\['; '\\[' is not a regular expression"),
        ({"rank_pattern": {"(?i)q": 2}}, r"'\(\?i\)q' is not a regular expression \(global flags not at the start"),
        ({"target_modules": [3]}, r"target_modules is \[3\]; it must be a list of modules' names"),
    ],
)
def test_settings_that_are_refused(config, message, tmp_path):
    refused(replace(SOME, config=config), tmp_path, ConfigurationError, rf"adapter_config\.json: .*{message}")


SLOW = r"(?:(?:[a-z0-9_.]*)*)*[A-Z]"


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "rank_pattern", "layers_pattern"])
def test_a_pattern_that_takes_too_long_is_refused(key, tmp_path, monkeypatch):
    monkeypatch.setattr("model.adapters.patterns.LIMIT_S", 1)
    value = {SLOW: 8} if key == "rank_pattern" else SLOW
    refused(
        replace(SOME, config={key: value}),
        tmp_path,
        ConfigurationError,
        r"adapter_config\.json: matching its patterns .*takes more than 1 s; list the names",
    )


def test_a_usual_pattern_may_have_alternatives_and_repeats(tmp_path):
    """As fine-tuning tools write them."""
    pattern = r"(?:.*?(?:language|text|layers).*?(?:self_attn|attention).*?(?:q_proj|v_proj).*?)|(?:\bmodel\.none)"
    lora = replace(
        SOME, targets=("q_proj", "v_proj"), config={"target_modules": pattern, "rank_pattern": {"(q|v)_.+": 4}}
    )
    require_merged(lora, lora.save(tmp_path / "adapter"), tmp_path)


def test_files_are_hashed_for_the_fingerprint_alone(tmp_path, monkeypatch):
    """They may have gigabytes, and several processes read an adapter."""
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: hashed.append(args) or digest(*args))
    adapter = read_adapter(SOME.save(tmp_path / "adapter"), spec_of(SOME))
    assert not hashed
    adapter.fingerprint()
    assert len(hashed) == 2


def with_tensor(folder: Path, lora: Lora, changes: dict[str, np.ndarray | None]) -> Path:
    """Another file in the folder of the adapter."""
    tensors = {**lora.tensors(), **changes}
    kept = {name: array for name, array in tensors.items() if array is not None}
    write_safetensors(lora.save(folder) / "adapter_model.safetensors", kept)
    return folder


Q = "base_model.model.model.layers.1.self_attn.q_proj"
ONE = np.ones((4, 64), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{Q}.lora_A.weight": None}, r"1 missing: model\.layers\.1\.self_attn\.q_proj\.lora_A\.weight \(4, 64\)"),
        (
            {f"{Q}.lora_A.weight": np.ones((4, 32), np.float32)},
            rf"1 wrongly shaped: {Q}\.lora_A\.weight is \(4, 32\), expe",
        ),
        (
            {f"{Q}.lora_B.weight": np.ones((64, 3), np.float32)},
            r"1 wrongly shaped: .* is \(64, 3\), expected \(64, 4\)",
        ),
        (
            {"base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight": ONE},
            r"1 surplus: base_model.*layers\.2",
        ),
        ({f"{Q}.lora_magnitude_vector.weight": ONE}, "lora_magnitude_vector.weight: DoRA is not supported; merge"),
        ({f"{Q}.lora_B.bias": ONE}, "biases are not supported"),
        ({"base_model.model.lm_head.lora_A.weight": ONE}, r"lm_head\.lora_A\.weight: adapters of the head"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": ONE}, "adapters of embeddings are not supported"),
        ({"base_model.model.model.layers.0.mlp.experts.3.up_proj.lora_A.weight": ONE}, "adapters of experts are not"),
        ({f"{Q}.lora_A.default.weight": ONE}, r"lora_A\.weight and .*lora_A\.default\.weight are the same tensor"),
        ({f"{Q}.lora_A.other.weight": ONE}, r"surplus: .*lora_A\.other\.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes, message, tmp_path):
    folder = with_tensor(tmp_path / "adapter", SOME, changes)
    with pytest.raises(CheckpointError, match=f"{folder}.*{message}"):
        read_adapter(folder, spec_of(SOME))


def test_an_adapter_of_another_model_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"does not fit the model: 12 missing: .*; was it trained on another model"
    ):
        read_adapter(SOME.save(tmp_path / "adapter"), read_spec({**QWEN2.config, "num_hidden_layers": 4}))


def test_values_that_are_not_numbers_are_refused_when_they_are_read(tmp_path):
    name = f"{Q}.lora_B.weight"
    bad = SOME.tensors()[name].copy()
    bad[3, 1] = np.inf
    adapter = read_adapter(with_tensor(tmp_path / "adapter", SOME, {name: bad}), spec_of(SOME))
    (change,) = adapter.changes["layers.1.q"]
    with pytest.raises(UnusableWeightError, match=rf"tensor {name}: 1 of 256 values are NaN or infinite"):
        change.b()


@pytest.mark.parametrize("alpha", [math.nan, -math.inf])
def test_a_scale_that_is_no_number_is_refused(alpha, tmp_path):
    folder = replace(SOME, config={"lora_alpha": alpha}).save(tmp_path / "adapter")
    with pytest.raises(ConfigurationError, match=f"lora_alpha is {alpha}; it must be a number"):
        read_adapter(folder, spec_of(SOME))


def test_a_scale_beyond_all_numbers_is_refused_when_it_is_read(tmp_path):
    lora = replace(SOME, config={"lora_alpha": 1e300})
    adapter = read_adapter(lora.save(tmp_path / "adapter"), spec_of(SOME))
    with pytest.raises(UnusableWeightError, match=r"q_proj\.lora_B\.weight times its scale, .*; is lora_alpha right"):
        adapter.changes["layers.0.q"][0].b()


def test_folders_that_are_no_adapters(tmp_path):
    spec = spec_of(SOME)
    with pytest.raises(ConfigurationError, match=r"is not an adapter: it has no adapter_config\.json"):
        read_adapter(tmp_path / "nowhere", spec)
    folder = SOME.save(tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="truncated"):
        read_adapter(folder, spec)
    write_safetensors(weights, {})
    with pytest.raises(CheckpointError, match="has no tensors"):
        read_adapter(folder, spec)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin is a pickle.*convert it once.*safetensors\.torch"):
        read_adapter(folder, spec)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors; was the adapter downloaded"):
        read_adapter(folder, spec)
    for text, message in (("[", "cannot read the adapter's configuration"), (json.dumps([1]), "must hold an object")):
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(ConfigurationError, match=message):
            read_adapter(folder, spec)


def test_only_the_adapters_layers_are_touched(tmp_path):
    weights = tuple(
        Weight(name, (1,), lambda _: pytest.fail("read")) for name in ("embed.weight", "layers.0.k.weight")
    )
    adapter = read_adapter(SOME.save(tmp_path / "adapter"), spec_of(SOME))
    assert adapter.merged_into(weights) == weights
