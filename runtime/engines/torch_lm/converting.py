"""GGUF files as directories in Hugging Face's layout: converted once, kept by the SHA-256 of the file.

The weights are kept in float16, whose rounding is a hundredth of that of four bits. A conversion appears under its
name all at once, with a list of its files and their hashes; one that does not match its list is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from acclimate.runtime.engines.language import LanguageModelError

LIST = "acclimate.json"
FORMAT = 1


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/acclimate/models`, in `~/.cache` where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acclimate" / "models"


def converted(file: Path, digest: str, cache: Path, progress: Callable[[str], None]) -> Path:
    """The directory of a GGUF file's conversion, made if it is not there.

    Raises:
        LanguageModelError: the file cannot be converted, or the cache cannot be written.
    """
    place = cache / f"{file.stem}-{digest[:16]}"
    if place.is_dir():
        fault = _fault(place, digest)
        if not fault:
            return place
        progress(f"{place} is damaged ({fault}); converting again")
        shutil.rmtree(place)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=cache, prefix=".converting-", ignore_cleanup_errors=True)
    except OSError as error:
        raise LanguageModelError(
            f"cache of converted models {cache} cannot be written ({error.strerror}); set language.cache"
        ) from error
    with scratch:
        made = Path(scratch.name, "made")
        made.mkdir()
        _convert(file, made, progress)
        _list(made, digest)
        try:
            made.rename(place)
        except OSError:
            # Somebody else was faster; theirs is as good if it is whole.
            if fault := _fault(place, digest):
                raise LanguageModelError(f"{place}: {fault}; remove it and try again") from None
    return place


def _convert(file: Path, made: Path, progress: Callable[[str], None]) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        progress(f"converting {file.name}: tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        progress(f"converting {file.name}: weights")
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float16)
    except Exception as error:
        # Readers of the format raise whatever they stumble over.
        raise LanguageModelError(f"{file}: this GGUF file cannot be converted ({error})") from error
    progress(f"converting {file.name}: writing")
    tokenizer.save_pretrained(made)
    config = model.config
    if hasattr(config, "quantization_config"):
        # It is not any more.
        del config.quantization_config
    config.save_pretrained(made)
    model.generation_config.save_pretrained(made)
    tensors = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not (name == "lm_head.weight" and config.tie_word_embeddings)
    }
    save_file(tensors, made / "model.safetensors", {"format": "pt"})


def _list(made: Path, digest: str) -> None:
    files = {path.name: digest_of(path) for path in sorted(made.iterdir())}
    document = {"format": FORMAT, "source": digest, "files": files}
    (made / LIST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _fault(place: Path, digest: str) -> str:
    """What is wrong with a conversion; empty: nothing."""
    try:
        document = json.loads((place / LIST).read_text(encoding="utf-8"))
        files = dict(document["files"])
        if (document["format"], document["source"]) != (FORMAT, digest):
            return "it is of another file or format"
        changed = [name for name, expected in files.items() if digest_of(place / name) != expected]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its list or a file cannot be read: {error}"
    return f"{', '.join(changed)} changed" if changed else ""


def digest_of(file: Path) -> str:
    """Hex SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
