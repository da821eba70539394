"""What is loaded is checked key by key; what cannot be used is told by file and reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmturn.errors import CheckpointError, ConfigError
from mmturn.models.load import LoadedModel, load_configured, load_model
from mmturn.models.settings import LoraSettings, ModelConfig


@pytest.fixture
def folder(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folders["qwen3_vl"], tmp_path / "model"))


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_what_comes_with_a_model(loaded: LoadedModel) -> None:
    assert not loaded.model.training and loaded.device.type == "cpu"
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.pad_id) == "<|endoftext|>"
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.image_token_id) == "<|image_pad|>"
    assert loaded.kv_shape == [(1, 32, torch.float32)] * 3
    assert loaded.base is loaded.model


def test_inherited_generation_settings_are_shown_and_ignored(folder: Path) -> None:
    settings = {"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.05, "transformers_version": "4"}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    loaded = load_model(folder)
    assert loaded.inherited_generation == {"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.05}
    assert loaded.base.generation_config.repetition_penalty in (None, 1.0)
    (folder / "generation_config.json").unlink()
    assert load_model(folder).inherited_generation == {}


def test_settings_reach_the_model(folder: Path) -> None:
    config = ModelConfig(str(folder), dtype="bfloat16", device="cpu", freeze_vision=True, lora=LoraSettings(rank=2))
    loaded = load_configured(config, activation_checkpointing=True)
    assert loaded.kv_shape[0][2] == torch.bfloat16
    trainable = [name for name, p in loaded.model.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    assert loaded.base is not loaded.model and loaded.base.model.language_model.gradient_checkpointing is not None
    assert load_model(folder, dtype="auto").kv_shape[0][2] == torch.float32
    assert load_model(folder, attention="eager").base.config._attn_implementation == "eager"


def test_weights_in_shards(folder: Path) -> None:
    whole = load_model(folder).model.state_dict()
    load_model(folder).model.save_pretrained(folder, max_shard_size="200KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    again = load_model(folder).model.state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in again.items())
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=rf"{shard.name}: not found"):
        load_model(folder)


def set_type(config: dict) -> None:
    config.update(model_type="llama", architectures=["LlamaForCausalLM"])


def test_another_architecture(folder: Path) -> None:
    edit_json(folder / "config.json", set_type)
    with pytest.raises(CheckpointError, match=r"config.json: the architecture is 'llama'; mmturn loads qwen2_5_vl"):
        load_model(folder)
    edit_json(folder / "config.json", lambda c: c.update(model_type="qwen3_vl"))
    with pytest.raises(CheckpointError, match="architectures is .*LlamaForCausalLM.*Qwen3VLForConditionalGeneration"):
        load_model(folder)


def test_weights_of_another_architecture(folder: Path, tiny_folders: dict[str, Path]) -> None:
    shutil.copy(tiny_folders["qwen2_5_vl"] / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="not those of Qwen3VLForConditionalGeneration"):
        load_model(folder)


KEY = "model.language_model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(KEY), r"q_proj\.weight missing from the weights"),
        (lambda w: w.update({"model.stranger": torch.zeros(2)}), r"model\.stranger in the weights but not"),
        (lambda w: w.update({KEY: torch.zeros(3, 5)}), r"q_proj\.weight \(\[3, 5\] in the file, \[64, 64\] in"),
    ],
)
def test_missing_unexpected_and_misshapen_weights(folder: Path, change: Callable, message: str) -> None:
    edit_weights(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_many_missing_weights_are_counted(folder: Path) -> None:
    edit_weights(folder, lambda w: [w.pop(key) for key in list(w) if "layers.1." in key])
    with pytest.raises(CheckpointError, match=r"and \d+ more missing"):
        load_model(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no model.safetensors .*pytorch_model.bin is a pickle"):
        load_model(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="no model.safetensors"):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 1000, 200_000])
def test_a_cut_off_file_is_named(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model.safetensors: is damaged"):
        load_model(folder)


def test_an_index_that_points_elsewhere_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(CheckpointError, match="names '../other.safetensors'"):
        load_model(folder)
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="index.json: cannot be read"):
        load_model(folder)


def test_a_tokenizer_that_does_not_fit_the_model(folder: Path) -> None:
    edit_json(folder / "config.json", lambda c: c.update(image_token_id=5))
    with pytest.raises(CheckpointError, match=r"image_token_id is 5, the tokenizer has <\|image_pad\|> at"):
        load_model(folder)


def test_broken_configs_and_missing_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json: cannot be read"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json: not found"):
        load_model(folder)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is a file"):
        load_model(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="has not been fetched"):
        load_model("mmturn-tests/never-fetched")


def test_settings_that_cannot_be(folder: Path) -> None:
    with pytest.raises(ConfigError, match="dtype"):
        load_model(folder, dtype="int8")
    with pytest.raises(ConfigError, match="no layer named"):
        load_model(folder, lora=LoraSettings(layers=("nope",)))
    with pytest.raises(ConfigError, match="rank"):
        LoraSettings(rank=0)
    with pytest.raises(ConfigError, match="flash_attention_2"):
        load_model(folder, attention="flash_attention_2")


def test_code_of_the_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    edit_json(folder / "config.json", lambda c: c.update(auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.M"}))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    load_model(folder)
    assert not (tmp_path / "ran").exists()
