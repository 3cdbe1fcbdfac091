"""What PEFT calls things on disk (huggingface/peft, `PeftModel.save_pretrained`)."""

from __future__ import annotations

CONFIG_FILE = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"

PREFIX = "base_model.model."
"""Before every module's path: the wrapper, and the tuner inside it."""
BASE_LAYER = ".base_layer"
"""After the path of a module that has an update: what the update wraps."""
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
