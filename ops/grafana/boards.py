"""Every board, by the name of its file."""

from __future__ import annotations

from ops.grafana import cost, drift, overview, session

BOARDS = {"overview": overview.BOARD, "drift": drift.BOARD, "cost": cost.BOARD, "session": session.BOARD}
