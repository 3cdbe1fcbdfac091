"""Memory of learning steps."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="language models need torch; pip install 'acclimate[llm]'")

from acclimate.runtime.engines.torch_lm import arena  # noqa: E402
from acclimate.runtime.engines.torch_lm.arena import Arena, Arenas  # noqa: E402
from tests.polling import until  # noqa: E402

CPU = torch.device("cpu")


def test_tensors_do_not_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena, "BLOCK", 1000)
    memory = Arena(CPU)
    shapes = [(3, 5), (1,), (7, 2, 9), (400,), (2, 2)]
    tensors = [memory.empty(*shape, dtype=dtype) for shape in shapes for dtype in (torch.float32, torch.bfloat16)]
    for number, tensor in enumerate(tensors):
        tensor.fill_(number)
    for number, tensor in enumerate(tensors):
        assert tensor.is_contiguous()
        assert tensor.data_ptr() % 16 == 0
        assert (tensor == number).all()


def test_scratch_is_given_again() -> None:
    memory = Arena(CPU)
    kept = memory.empty(10)
    with memory.scratch():
        first = memory.empty(20).data_ptr()
        with pytest.raises(ValueError, match="within"), memory.scratch():
            memory.empty(20)
            raise ValueError("within")
    assert memory.empty(30).data_ptr() == first
    memory.clear()
    assert memory.empty(10).data_ptr() == kept.data_ptr()


def test_memory_waits_for_the_next_call_and_not_for_ever() -> None:
    arenas = Arenas(CPU, patience=0.05)
    with arenas.one() as one:
        where = one.empty(100).data_ptr()
        with arenas.one() as other:
            assert other is not one
            assert other.empty(100).data_ptr() != where
    with arenas.one() as again:
        assert again is one
        assert again.empty(100).data_ptr() == where
    until(lambda: not arenas.waiting, "memory that nobody asked for to be released")
    with arenas.one() as later:
        assert later is not one


def test_closing_releases_at_once() -> None:
    arenas = Arenas(CPU, patience=1000)
    with arenas.one():
        pass
    assert arenas.waiting
    arenas.close()
    assert not arenas.waiting
    arenas.close()
