"""Language models of a few kilobytes, made with transformers, and what PEFT makes of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="language models need torch; pip install 'acclimate[llm]'")
pytest.importorskip("peft", reason="language models are compared with PEFT; pip install 'acclimate[llm]'")

from acclimate.adapters.language import TokenRows, TokenScores, token_rows  # noqa: E402
from acclimate.runtime.engines.torch_lm.engine import TorchLanguageEngine  # noqa: E402
from acclimate.runtime.engines.torch_lm.options import PROJECTIONS, LmOptions  # noqa: E402

ALL = tuple(PROJECTIONS)
VOCABULARY = 320
CONTEXT = 96
TEXT = "The quick brown fox jumps over the lazy dog. Ein süßes Café, 日本語 und 🙂🙃! 0123456789\n" * 3
TEMPLATE = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
}


def make_tokenizer() -> Any:
    """Byte-level pairs, as GPT-2's and SmolLM2's, with two special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|start|>", "<|end|>"]
    inner.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=special[0], eos_token=special[1], chat_template=TEMPLATE
    )


def make_model(path: Path, family: str = "llama", **changed: Any) -> Path:
    """A model with random weights in a directory, sharp enough for its answers not to be near ties."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SIZES | {"tie_word_embeddings": True} | changed))
    config.dtype = torch.float32
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0, 0.1) if "norm" in name else parameter.normal_(0.0, 0.15)
    model.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


def engine_of(path: Path, **chosen: Any) -> TorchLanguageEngine:
    """An engine on one thread of the processor."""
    settings: dict[str, Any] = {"precision": "fp32", "rank": 4, "targets": ALL, "threads": 1, "device": "cpu"}
    return TorchLanguageEngine(LmOptions(name="tiny", path=str(path), **(settings | chosen)))


def thetas(engine: TorchLanguageEngine, count: int, seed: int = 0, size: float = 0.05) -> np.ndarray:
    """Rows of theta of sessions that have learnt."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((count, engine.manifest.parameters.size)).astype(np.float32)
    return (engine.source.theta + size * noise).astype(np.float32)


def some_rows(group: list[int], seed: int = 0, shortest: int = 2, longest: int = 20) -> TokenRows:
    """Random rows of unequal length."""
    random = np.random.default_rng(seed)
    lengths = random.integers(shortest, longest + 1, len(group))
    return token_rows([random.integers(2, VOCABULARY, length) for length in lengths], group)


def cotangents(rows: TokenRows, seed: int = 0) -> TokenScores:
    """Random ones."""
    random = np.random.default_rng(seed)
    return TokenScores(*(random.standard_normal(rows.ids.shape).astype(np.float32) for _ in range(2)))


def peft_model(path: Path, engine: TorchLanguageEngine, theta: np.ndarray) -> Any:
    """The model in transformers with a session's updates in PEFT, put there by the names in the manifest."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    updates = engine.manifest.lora
    config = LoraConfig(
        r=updates[0].rank, lora_alpha=updates[0].alpha, target_modules=[update.name for update in updates]
    )
    with warnings.catch_warnings():
        # PEFT asks transformers for what it is about to rename.
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(base, config)
    tensors = engine.manifest.parameters.unpack(theta)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for update in updates:
            for name, side in ((update.a, "lora_A"), (update.b, "lora_B")):
                target = parameters[f"base_model.model.{update.name}.{side}.default.weight"]
                target.copy_(torch.from_numpy(tensors[name]))
    return model


def peft_scores(model: Any, row: np.ndarray) -> tuple[Any, Any]:
    """Log-probability and entropy of each token after the first of a row, with torch's graph."""
    logits = model(torch.from_numpy(row)[None]).logits[0, :-1].float()
    logs = torch.log_softmax(logits, -1)
    picked = logs.gather(1, torch.from_numpy(row)[1:, None])[:, 0]
    return picked, -(logs.exp() * logs).sum(-1)


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    """The size of a difference in units of what is expected."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
