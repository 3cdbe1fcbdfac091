"""What language models are compared with: PEFT on transformers, and llama.cpp; and our own engine doing the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acclimate.adapters.bank import State
from acclimate.adapters.language import Ids, TokenScores, token_rows
from acclimate.adapters.optimisers.adamw import AdamW
from acclimate.runtime.engines.language import Sampling
from acclimate.runtime.engines.torch_lm.engine import TorchLanguageEngine

Clock = Callable[[], float]
RULE = AdamW(1e-3)


@dataclass
class Rows:
    """Theta `[S, P]` of S sessions and the state of Adam: all that a session costs."""

    source: np.ndarray
    theta: np.ndarray
    state: State

    @classmethod
    def of(cls, theta: np.ndarray, sessions: int) -> Rows:
        """Sessions that begin at the source."""
        return cls(theta, np.tile(theta, (sessions, 1)), RULE.template(len(theta), sessions))

    def descend(self, gradient: np.ndarray, part: slice) -> None:
        """One step of Adam, as lessons take it, for some of the sessions."""
        state = {name: value[part] for name, value in self.state.items()}
        theta, moments = RULE.next(state, self.theta[part], gradient, self.source, np.ones(len(gradient), np.float32))
        self.theta[part] = theta
        for name, value in moments.items():
            self.state[name][part] = value


def our_step(engine: TorchLanguageEngine, rows: Rows, texts: list[Ids], part: slice) -> float:
    """One step of each session on its text, all in one batch; the mean loss in nats a token."""
    batch = token_rows(texts, list(range(len(texts))))
    weights = np.where(np.arange(batch.ids.shape[1]) < batch.lengths[:, None], -1.0, 0) / (batch.lengths[:, None] - 1)
    weights[:, 0] = 0
    cotangents = TokenScores(weights.astype(np.float32), np.zeros_like(weights, np.float32))
    scored, gradient = engine.vjp(batch, rows.theta[part], cotangents)
    rows.descend(gradient, part)
    return float((scored.logprob * weights).sum() / len(texts))


def our_texts(engine: TorchLanguageEngine, thetas: np.ndarray, prompts: list[Ids], tokens: int) -> int:
    """How many tokens all the texts have."""
    decoder = engine.decoder(len(prompts))
    for prompt, theta in zip(prompts, thetas, strict=True):
        decoder.admit(prompt, theta, Sampling(tokens))
    said = 0
    while decoder.free < len(prompts):
        said += len(decoder.step())
    return said


def our_pace(engine: TorchLanguageEngine, theta: np.ndarray, prompt: Ids, tokens: int, clock: Clock) -> float:
    """Tokens a second of one text, from its first token on."""
    decoder = engine.decoder(1)
    decoder.admit(prompt, theta, Sampling(tokens))
    decoder.step()
    start, said = clock(), 0
    while not decoder.free:
        said += len(decoder.step())
    return said / (clock() - start)


class Peft:
    """Sessions as adapters of one PEFT model."""

    def __init__(
        self, directory: Path, precision: str, engine: TorchLanguageEngine, sessions: int, device: str
    ) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        settings: dict[str, Any] = {"dtype": torch.float32 if precision == "fp32" else torch.bfloat16}
        settings["device_map"] = self._device = device
        if precision == "nf4":
            quantised: Any = BitsAndBytesConfig
            settings["quantization_config"] = quantised(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
            )
        first = engine.manifest.lora[0]
        targets = sorted({update.name.rpartition(".")[2] for update in engine.manifest.lora})
        config = LoraConfig(r=first.rank, lora_alpha=int(first.alpha), target_modules=targets, task_type="CAUSAL_LM")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = AutoModelForCausalLM.from_pretrained(directory, **settings)
            self.names = [f"session{number}" for number in range(sessions)]
            self.model: Any = get_peft_model(base, config, adapter_name=self.names[0])
            for name in self.names[1:]:
                self.model.add_adapter(name, config)
        self._optimisers = {name: self._optimiser(name) for name in self.names}

    def _optimiser(self, name: str) -> Any:
        self.model.set_adapter(name)
        return torch.optim.Adam(
            [p for p in self.model.parameters() if p.requires_grad], lr=RULE.lr, betas=(RULE.beta1, RULE.beta2)
        )

    def reset(self) -> None:
        """Put every session back to the source, where no B changes anything."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if "lora_B" in name:
                    parameter.zero_()
        self._optimisers = {name: self._optimiser(name) for name in self.names}

    def steps(self, texts: list[Ids]) -> float:
        """A step of each session on its text, one after the other; the mean loss."""
        self.model.train()
        losses = []
        for name, text in zip(self.names, texts, strict=True):
            self.model.set_adapter(name)
            ids = torch.from_numpy(text)[None].to(self._device)
            loss = self.model(input_ids=ids, labels=ids).loss
            loss.backward()
            self._optimisers[name].step()
            self._optimisers[name].zero_grad(set_to_none=True)
            # Reading the loss waits for a GPU, which has done all that came before.
            losses.append(float(loss.detach()))
        return float(np.mean(losses))

    def texts(self, prompts: list[Ids], tokens: int) -> int:
        """How many tokens all the texts have, generated together."""
        self.model.eval()
        ids = torch.from_numpy(np.stack(prompts)).to(self._device)
        with torch.inference_mode():
            whole = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                adapter_names=self.names,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
            )
        # Copied, so that a GPU has written the last one.
        return int(whole[:, ids.shape[1] :].cpu().numel())


class LlamaCpp:
    """llama-cpp-python on the GGUF file itself."""

    def __init__(self, file: Path, threads: int) -> None:
        from llama_cpp import Llama

        self._inner: Any = Llama(str(file), n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)

    def pace(self, prompt: Ids, tokens: int, clock: Clock) -> float:
        """Tokens a second of one greedy text, from its first token on."""
        self._inner.reset()
        self._inner.eval(prompt.tolist())
        token = self._inner.sample(temp=0.0)
        start = clock()
        for _ in range(tokens - 1):
            self._inner.eval([token])
            token = self._inner.sample(temp=0.0)
        return (tokens - 1) / (clock() - start)
