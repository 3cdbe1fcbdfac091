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


# Fields of at least as many bytes a session are written once there is something to write.
LARGE_BYTES = 1024


class SessionBank:
    """Rows of session state `[S, ...]`, grown by doubling, freed rows reused.

    The large fields of a row that nobody has written to are the template's without being there: a session that has
    learnt nothing takes the memory of its small fields alone, since the system gives none to what was never touched.

    Args:
        template: one session's initial state, field name to array without the session axis.
        capacity: rows to allocate at first.
    """

    def __init__(self, template: Mapping[str, NDArray[Any]], capacity: int = 16) -> None:
        self._template = {name: np.array(value) for name, value in template.items()}
        self._fields: State = {name: _rows(value, capacity) for name, value in self._template.items()}
        self._large = tuple(name for name, value in self._template.items() if value.nbytes >= LARGE_BYTES)
        # Rows whose large fields are the template's, and hold anything.
        self._fresh = np.ones(capacity, np.bool_)
        self._free = list(range(capacity - 1, -1, -1))
        self._capacity = capacity
        self.row_bytes = sum(value.nbytes for value in self._template.values())
        """Bytes that one session's state takes once all of it was written."""

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
        kept = {name for name in self._fields if keep is not None and name.startswith(keep)}
        whole = not kept.intersection(self._large)
        self._fresh[row] |= whole
        for name, value in self._template.items():
            if name not in kept and not (whole and name in self._large):
                self._fields[name][row] = value

    def gather(self, rows: Sequence[int], names: Collection[str] | None = None) -> State:
        """Copies of the rows, `[len(rows), ...]` per field, or for these fields alone where the bank has them."""
        index = np.asarray(rows, np.intp)
        wanted = [name for name in self._fields if names is None or name in names]
        state = {name: self._fields[name][index] for name in wanted}
        fresh = self._fresh[index]
        if fresh.any():
            for name in self._large:
                if name in state:
                    state[name][fresh] = self._template[name]
        return state

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
        if any(name in fields for name in self._large):
            self._settle(index, fields)
        for name, value in fields.items():
            self._fields[name][index] = value

    def view(self, name: str, row: int) -> NDArray[Any]:
        """A copy of one field of one row."""
        return np.array(self._template[name] if self._fresh[row] and name in self._large else self._fields[name][row])

    def _settle(self, index: NDArray[np.intp], fields: Collection[str]) -> None:
        """Put the template into the large fields of rows that have nothing in them yet, but for `fields`."""
        fresh = index[self._fresh[index]]
        for name in self._large:
            if name not in fields:
                self._fields[name][fresh] = self._template[name]
        self._fresh[fresh] = False

    def _grow(self) -> None:
        added = self._capacity
        settled = np.flatnonzero(~self._fresh)
        for name, field in self._fields.items():
            # Replaced one by one, so that no more than one field is held twice.
            grown = _rows(self._template[name], self._capacity + added)
            if name in self._large:
                grown[settled] = field[settled]
            else:
                grown[: self._capacity] = field
            self._fields[name] = grown
        self._fresh = np.append(self._fresh, np.ones(added, np.bool_))
        self._free = list(range(self._capacity + added - 1, self._capacity - 1, -1))
        self._capacity += added


def _rows(value: NDArray[Any], count: int) -> NDArray[Any]:
    """Room for rows; the system gives memory only to those that are written."""
    return np.empty((count, *value.shape), value.dtype)
