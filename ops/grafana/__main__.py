"""Writes every board's JSON beside this file."""

from __future__ import annotations

from pathlib import Path

from ops.grafana._build import document
from ops.grafana.boards import BOARDS

if __name__ == "__main__":
    for name, board in BOARDS.items():
        (Path(__file__).parent / f"{name}.json").write_text(document(board), encoding="utf-8")
