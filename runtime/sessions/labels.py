"""Labels of a session: a few words of its owner's, to find it by."""

from __future__ import annotations

import re
from collections.abc import Mapping

from acclimate.runtime.errors import InvalidArgument

LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
MAX_LABELS, MAX_VALUE = 16, 128


def checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels, or InvalidArgument for too many of them, or one that is not acceptable."""
    if len(labels) > MAX_LABELS:
        raise _invalid(f"labels has {len(labels)} entries; a session has at most {MAX_LABELS}", "labels")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise _invalid(
                f"label {key[:80]!r} is no key; use 1 to 63 lower-case letters, digits, '_' or '-', starting with a "
                "letter",
                "labels",
            )
        if len(value) > MAX_VALUE or not value.isprintable():
            raise _invalid(
                f"label {key!r} is {value[:80]!r}; use at most {MAX_VALUE} printable characters", f"labels.{key}"
            )
    return dict(labels)


def _invalid(message: str, field: str) -> InvalidArgument:
    return InvalidArgument("SESSION_LABELS_INVALID", message, field=field)
