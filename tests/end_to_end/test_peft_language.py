"""A session of a language model into PEFT and out of it, on a tiny random Llama, as its users would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from acclimate.runtime.client import Client, ClientError, LearnVerdict, read_seed, write_peft
from acclimate.runtime.engines.torch_lm.engine import TorchLanguageEngine
from acclimate.runtime.engines.torch_lm.options import LmOptions
from tests.runtime.generation.test_learn import TEXTS
from tests.runtime.generation.writers import CORPUS
from tests.runtime.rpc.loopback import Loopback, config, serving

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

MODEL, RANK, ALPHA = "tiny", 4, 8.0
TARGETS = ("q_proj", "v_proj", "down_proj")
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
LEARN = {"lr": 0.02, "threshold": 0.0, "scale": 1.0, "epochs": 6}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of random weights and a tokenizer of bytes, as Hugging Face keeps them."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([CORPUS], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")  # noqa: S106
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape = LlamaConfig(
        vocab_size=len(fast),
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        **sizes,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def running(llama: Path) -> Iterator[Loopback]:
    options = LmOptions(MODEL, str(llama), precision="fp32", rank=RANK, alpha=ALPHA, targets=TARGETS, device="cpu")
    engine = TorchLanguageEngine(options)
    permissive = config().model_copy(update={"generation": config().generation.model_copy(update=PERMISSIVE)})
    with serving(permissive, languages={MODEL: engine}) as up:
        yield up


PERMISSIVE = {"trust_radius": 100.0, "canary_tolerance": 10.0}


def logprobs(model: Any, folder: Path, text: str) -> np.ndarray:
    """Log-probabilities of a text's tokens after the first, by Hugging Face."""
    fast = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = torch.tensor([fast.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        scores = model.eval()(input_ids=ids).logits.log_softmax(-1)
    return scores[0, :-1].gather(1, ids[0, 1:, None])[:, 0].numpy()


def ours(client: Client, session: str | None, text: str) -> np.ndarray:
    each = client.score(MODEL, [text], session_id=session, each_token=True).scored[0].each
    return np.array([token.logprob for token in each])


def test_what_a_session_has_learnt_is_what_peft_loads(running: Loopback, llama: Path, tmp_path: Path) -> None:
    with Client(running.target, timeout_seconds=60) as client:
        base = LlamaForCausalLM.from_pretrained(llama)
        np.testing.assert_allclose(ours(client, None, TEXTS[0]), logprobs(base, llama, TEXTS[0]), atol=2e-4)
        session = client.create_session(MODEL, "out")
        assert session.learn(texts=TEXTS, recipe_parameters=LEARN).wait().verdict is LearnVerdict.COMMITTED
        assert write_peft(session.export(), tmp_path / "adapter") == ()
        adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
        theirs = logprobs(adapted, llama, TEXTS[0])
        np.testing.assert_allclose(ours(client, "out", TEXTS[0]), theirs, atol=5e-4)
        assert theirs.sum() > ours(client, None, TEXTS[0]).sum() + 10, "it has learnt nothing to compare"


def test_a_session_begins_as_an_adapter_that_peft_made(running: Loopback, llama: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    lora = peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=list(TARGETS), task_type="CAUSAL_LM")
    model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(llama), lora)
    for name, values in model.named_parameters():
        if "lora_B" in name:
            values.data.normal_(0, 0.3)
    model.save_pretrained(tmp_path / "made")
    with Client(running.target, timeout_seconds=60) as client:
        session = client.create_session(MODEL, "in", seed=read_seed(tmp_path / "made"))
        assert session.get().version == 1
        theirs = logprobs(model, llama, TEXTS[1])
        np.testing.assert_allclose(ours(client, "in", TEXTS[1]), theirs, atol=5e-4)
        assert abs(theirs - ours(client, None, TEXTS[1])).max() > 0.1
        write_peft(session.export(), tmp_path / "again")
        again = peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(llama), tmp_path / "again")
        np.testing.assert_allclose(logprobs(again, llama, TEXTS[1]), theirs, atol=5e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"r": 2}, "SHAPE_MISMATCH"),
        ({"lora_alpha": 3}, "LORA_MISMATCH"),
        ({"target_modules": ["k_proj"]}, "TENSOR_UNKNOWN"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    running: Loopback, llama: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    settings = {"r": RANK, "lora_alpha": int(ALPHA), "target_modules": list(TARGETS)} | change
    model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(llama), peft.LoraConfig(**settings))
    model.save_pretrained(tmp_path / "made")
    with Client(running.target) as client, pytest.raises(ClientError) as caught:
        client.create_session(MODEL, seed=read_seed(tmp_path / "made"))
    assert caught.value.reason in (reason, "LORA_MISMATCH")
