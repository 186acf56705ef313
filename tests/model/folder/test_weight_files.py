"""Folders as they are cloned, half-cloned and mixed: which files are the weights, or why there are none."""

from __future__ import annotations

import json

import pytest

from model.errors import CheckpointError
from model.folder import weight_files

INDEX = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def index_of(*files):
    return json.dumps({"weight_map": {f"tensor{number}": file for number, file in enumerate(files)}})


@pytest.fixture
def folder(tmp_path):
    """Makes one from names, or names and contents."""

    def make(*names, **contents):
        place = tmp_path / "model"
        for name in names:
            contents[name] = "x"
        for name, content in contents.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(content)
        return place

    return make


@pytest.mark.parametrize(
    ("names", "contents", "read"),
    [
        (["model.safetensors", "consolidated.safetensors"], {}, ["model.safetensors"]),
        (["model.safetensors", "adapter_model.safetensors"], {}, ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"], {}, ["model.safetensors"]),
        ([ONE, TWO, "consolidated.safetensors", "x.gguf"], {}, [ONE, TWO]),
        ([ONE, TWO, "stray.safetensors"], {INDEX: index_of(ONE, TWO)}, [ONE, TWO]),
        ([ONE, "consolidated-1.safetensors"],
         {f"consolidated{INDEX[5:]}": index_of("consolidated-1.safetensors"), INDEX: index_of(ONE)}, [ONE]),
        (["model.safetensors"], {"adapter.safetensors.index.json": "no index"}, ["model.safetensors"]),
        (["a.safetensors", "b.safetensors", "optimizer.safetensors"], {}, ["a.safetensors", "b.safetensors"]),
        (["llama.ckpt", "adapter_model.safetensors"], {}, ["llama.ckpt"]),
    ],
)  # fmt: skip
def test_what_is_read(folder, names, contents, read):
    assert [file.name for file in weight_files(folder(*names, **contents))] == read


@pytest.mark.parametrize(
    ("names", "contents", "expected"),
    [
        (["pytorch_model.bin"], {}, r"pytorch_model.bin is a pickle.*python -c .*from_pretrained\('.*/model'\)"),
        (["consolidated.00.pth", "consolidated.01.pth", "params.json"], {}, r"convert_llama_weights_.*shards 2"),
        (["weights.pth"], {}, r"safetensors.torch.save_file\(torch.load"),
        (["model-Q4_K_M.gguf"], {}, r"is GGUF, llama.cpp's format.*gguf_file='model-Q4_K_M.gguf'"),
        (["consolidated.safetensors", "tekken.json"], {}, r"Mistral's own format.*hf download ORG/NAME --local-dir"),
        (["adapter_model.safetensors"], {"adapter_config.json": '{"base_model_name_or_path": "meta/L"}'},
         r"an adapter \(LoRA\) of meta/L, not a model.* MODEL --lora .*/model, or --lora NAME=.*merge_and_unload"),
        (["adapter_model.safetensors"], {"adapter_config.json": "["}, r"an adapter \(LoRA\), not a model"),
        (["tf_model.h5"], {}, "of another framework"),
        (["config.json"], {}, r"expected \*\.safetensors or \*\.ckpt files; complete it: hf download"),
        (["README.md", "7b/config.json"], {}, "did you mean .*model/7b"),
        (["7b/config.json", "models--a--b/refs/main"], {}, r"did you mean .*model/7b or .*model/models--a--b\?"),
        ([f"{number}/config.json" for number in range(6)], {}, r"model/3 \(2 more\)\?"),
        (["model_index.json", "unet/config.json"], {}, "is a pipeline that makes images"),
        (["onnx/model.onnx"], {}, "model.onnx is of another framework"),
        (["global_step9/mp_rank_00_model_states.pt"], {}, "DeepSpeed.*zero_to_fp32.py --safe_serialization"),
        (["model-1.incomplete"], {}, "a download is unfinished"),
        ([ONE], {INDEX: index_of(ONE, TWO)}, f"names files that are missing beside it: {TWO}; complete the folder"),
        ([ONE, ".cache/huggingface/download/abc.incomplete"], {INDEX: index_of(ONE, TWO)}, r"unfinished \(abc\.inc"),
        ([TWO], {}, f"lacks shards: {ONE}; complete"),
        ([ONE, "model-00001-of-00003.safetensors"], {}, "shards of 00002 and of 00003, and no model"),
        ([], {"model.safetensors": POINTER}, "is a Git LFS pointer.*git lfs pull"),
        ([], {INDEX: POINTER}, "index.json is a Git LFS pointer"),
        ([], {INDEX: index_of(ONE), ONE: POINTER}, f"{ONE} is a Git LFS pointer"),
        ([], {"model.safetensors": ""}, "is empty; download it again"),
        ([], {INDEX: '{"weight_map": {"a": 3}}'}, "is not a safetensors index"),
    ],
)  # fmt: skip
def test_refused_with_reason_and_remedy(folder, names, contents, expected):
    with pytest.raises(CheckpointError, match=expected):
        weight_files(folder(*names, **contents))


def test_a_folder_beside_metas_own(folder):
    place = folder("original/consolidated.00.pth", "original/params.json", "model.safetensors")
    with pytest.raises(CheckpointError, match=f"as safetensors: serve {place}$"):
        weight_files(place / "original")


def test_a_link_to_a_blob_that_is_missing(folder):
    place = folder("config.json")
    for name in ("model.safetensors", "other/blob"):
        (place / name).parent.mkdir(exist_ok=True)
    (place / "model.safetensors").symlink_to(place / "other/blob")
    with pytest.raises(CheckpointError, match="is a link to a file that is missing; download it again"):
        weight_files(place)
