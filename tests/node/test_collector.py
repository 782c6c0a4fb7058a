"""The calm collector still frees cycles, within its bound."""

import gc
import weakref

from gateway import collector


class Knot:
    def __init__(self) -> None:
        self.own = self


def test_cycles_are_freed_all_the_same() -> None:
    before = gc.get_threshold()
    try:
        collector.calm()
        assert gc.get_freeze_count() > 0 and gc.get_threshold()[1:] == before[1:]
        gone = weakref.ref(Knot())
        kept: list[list[int]] = [[] for _ in range(collector.LOOK_OBJECTS + 1)]
        assert gone() is None and kept
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
