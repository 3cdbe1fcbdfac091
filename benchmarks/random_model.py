"""Write a language model with random weights and another's tokenizer, of a size that is not at hand, to time it.

    python -m benchmarks.random_model OUT [--like smollm2] [--layers 22] [--width 2048] [--inner 5632]
                                      [--heads 32] [--kv-heads 4]
    python -m benchmarks.lm --model OUT --device cuda

How fast a model learns and generates does not depend on what its weights say. The default is the size of TinyLlama-1.1B
(Zhang et al. 2024, arXiv 2401.02385).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from acclimate.runtime.engines.torch_lm.converting import default_cache
from acclimate.runtime.engines.torch_lm.finding import find
from benchmarks._report import Report, emit, parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Write it, and say how many weights it has."""
    options = parser(__doc__)
    options.add_argument("out", type=Path)
    options.add_argument("--like", default="smollm2", help="whose tokenizer it has (default %(default)s)")
    for name, size in (("layers", 22), ("width", 2048), ("inner", 5632), ("heads", 32), ("kv-heads", 4)):
        options.add_argument(f"--{name}", type=int, default=size, help="(default %(default)s)")
    chosen = options.parse_args(arguments)
    tokenizer = AutoTokenizer.from_pretrained(find(chosen.like, default_cache(), lambda _: None).directory)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=chosen.width,
        intermediate_size=chosen.inner,
        num_hidden_layers=chosen.layers,
        num_attention_heads=chosen.heads,
        num_key_value_heads=chosen.kv_heads,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16)
    model.save_pretrained(chosen.out)
    tokenizer.save_pretrained(chosen.out)
    weights = sum(parameter.numel() for parameter in model.parameters())
    emit(Report("random_model", {"weights": float(weights)}, []), as_json=chosen.json)


if __name__ == "__main__":
    main()
