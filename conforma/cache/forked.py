"""What a forked child must make anew: it has the memory of its parent and none of its threads."""

from __future__ import annotations

import weakref
from os import register_at_fork
from typing import Protocol


class Renewable(Protocol):
    """Something whose locks may be held, and whose work may be done, by threads."""

    def reset_after_fork(self) -> None:
        """Forget the threads of the parent; called in the child, before anything else runs."""
        ...


_all: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_in_children(thing: Renewable) -> None:
    """Have ``thing`` reset in every child forked from now on, as long as it lives."""
    _all.add(thing)


def _renew() -> None:
    for thing in list(_all):
        thing.reset_after_fork()


register_at_fork(after_in_child=_renew)
