"""The states of all sessions that share a model and a recipe, as one struct of arrays.

A state is a mapping from field name to array with the session axis first. A session is a row: creating,
forking, snapshotting and rolling back are copies of rows. The bank holds no lock; its owner serialises calls.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.errors import LayoutError

State = dict[str, NDArray[Any]]


class SessionBank:
    """Rows of session state `[S, ...]`, grown by doubling, freed rows reused.

    Args:
        template: one session's initial state, field name to array without the session axis.
        capacity: rows to allocate at first.
    """

    def __init__(self, template: Mapping[str, NDArray[Any]], capacity: int = 16) -> None:
        self._template = {name: np.array(value) for name, value in template.items()}
        self._fields: State = {name: _rows(value, capacity) for name, value in self._template.items()}
        self._free = list(range(capacity - 1, -1, -1))
        self._capacity = capacity
        self.row_bytes = sum(value.nbytes for value in self._template.values())
        """Bytes that one session's state takes."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the fields."""
        return tuple(self._fields)

    @property
    def live(self) -> int:
        """Rows in use."""
        return self._capacity - len(self._free)

    def allocate(self) -> int:
        """Take a row, set it to the template, return its number."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.reset(row)
        return row

    def release(self, row: int) -> None:
        """Give a row back."""
        self._free.append(row)

    def reset(self, row: int, keep: str | None = None) -> None:
        """Set every field of a row to the template, but those whose name starts with `keep`."""
        for name, value in self._template.items():
            if keep is None or not name.startswith(keep):
                self._fields[name][row] = value

    def gather(self, rows: Sequence[int], names: Collection[str] | None = None) -> State:
        """Copies of the rows, `[len(rows), ...]` per field, or for these fields alone where the bank has them."""
        index = np.asarray(rows, np.intp)
        return {name: field[index] for name, field in self._fields.items() if names is None or name in names}

    def scatter(self, rows: Sequence[int], state: State) -> None:
        """Write rows back.

        Raises:
            LayoutError: a field is missing or has another shape or dtype; nothing is written then.
        """
        self.write(rows, {name: state.get(name) for name in self._fields})

    def write(self, rows: Sequence[int], fields: Mapping[str, NDArray[Any] | None]) -> None:
        """Write some fields of rows; others stay as they are.

        Raises:
            LayoutError: a field is unknown, missing or has another shape or dtype; nothing is written then.
        """
        for name, value in fields.items():
            field = self._fields.get(name)
            if field is None:
                raise LayoutError(f"state: field {name!r} is unknown; there are {sorted(self._fields)}")
            if value is None or value.shape != (len(rows), *field.shape[1:]) or value.dtype != field.dtype:
                given = None if value is None else (value.dtype.name, value.shape)
                raise LayoutError(
                    f"state: field {name!r} is {given}; expected {(field.dtype.name, (len(rows), *field.shape[1:]))}"
                )
        index = np.asarray(rows, np.intp)
        for name, value in fields.items():
            self._fields[name][index] = value

    def view(self, name: str, row: int) -> NDArray[Any]:
        """A copy of one field of one row."""
        return np.array(self._fields[name][row])

    def _grow(self) -> None:
        added = self._capacity
        for name, field in self._fields.items():
            # Replaced one by one, so that no more than one field is held twice.
            self._fields[name] = _rows(self._template[name], self._capacity + added)
            self._fields[name][: self._capacity] = field
        self._free = list(range(self._capacity + added - 1, self._capacity - 1, -1))
        self._capacity += added


def _rows(value: NDArray[Any], count: int) -> NDArray[Any]:
    """Room for rows; `allocate` sets each, and the system gives memory only to those that were set."""
    return np.empty((count, *value.shape), value.dtype)
