"""Writing single files whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from acclimate.export.errors import ExportError


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A path to write to; what lies there when the block ends is renamed to `out`, in place of an older file.

    Raises:
        ExportError: it cannot be written; nothing is left behind then.
    """
    try:
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
            path = Path(folder, out.name)
            yield path
            path.replace(out)
    except OSError as error:
        raise ExportError(f"out: {str(out)!r} cannot be written ({error.strerror})") from error
