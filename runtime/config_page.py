"""`docs/configuration.md`, generated: `python -m acclimate.runtime.config_page > docs/configuration.md`."""

from __future__ import annotations

import json
import sys
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from acclimate.runtime.config import fields, variable


def markdown() -> str:
    """`docs/configuration.md`."""
    rows = []
    for key, field in fields():
        default = field.get_default(call_default_factory=True)
        shown = json.dumps(default if isinstance(default, (int, float, str, dict)) else list(default))
        rows.append(f"| `{key}` | `{variable(key)}` | `{shown}` | {_range(field)} | {field.description} |")
    return _PAGE + "\n".join(rows) + "\n"


def _range(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    bounds = {type(entry).__name__: entry for entry in field.metadata}
    low, high = getattr(bounds.get("Ge"), "ge", None), getattr(bounds.get("Le"), "le", None)
    if low is None:
        return ""
    return f"{low:g} or more" if high is None else f"{low} to {high}"


_PAGE = """# Configuration

<!-- Generated: python -m acclimate.runtime.config_page > docs/configuration.md -->

`acclimate serve --config FILE` reads TOML; every key can be set by an environment variable too, and a few by
a flag. Flags win over the environment, the environment over the file, the file over the defaults. A key or
an `ACCLIMATE_` variable that does not exist is an error that names the nearest one that does; a bad
configuration ends with exit code 2.

```toml
bundles = ["digits"]

[server]
grpc_port = 8001

[budget]
refill_ms_per_s = 200.0
```

| key | environment | default | range | meaning |
|---|---|---|---|---|
"""

if __name__ == "__main__":
    sys.stdout.write(markdown())
