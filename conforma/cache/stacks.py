"""The layers of an image on top of each other; images of one release share whole stacks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from msgspec import Struct

from conforma.cache.contents import Contents
from conforma.cache.layers import SafeLayer
from conforma.cache.overlay import Overlay
from conforma.cache.toc import Toc

# Layers of one image that are brought in at the same time.
_AT_ONCE: Final = 4
KEPT: Final = 8
"""Images whose layers are kept together for the next question, and overlays of such."""


class Stack(Struct, frozen=True):
    """An image's layers, lowest first, and the file system they make."""

    layers: tuple[SafeLayer, ...]
    contents: tuple[Contents, ...]
    overlay: Overlay


class Overlays:
    """The overlays that were used last, by the tables they consist of. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The tables are kept with their overlay, so no other object takes their identities.
        self._known: OrderedDict[tuple[int, ...], tuple[tuple[Toc, ...], Overlay]] = OrderedDict()

    def of(self, contents: tuple[Contents, ...]) -> Overlay:
        """What these layers unpack to. Raises what reading a layer raises."""
        tocs = tuple(content.toc for content in contents)
        key = tuple(map(id, tocs))
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known[1]
        overlay = Overlay(tocs, lambda number: contents[number].members())
        with self._lock:
            self._known[key] = (tocs, overlay)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return overlay


def all_contents(
    layers: tuple[SafeLayer, ...], bring: Callable[[SafeLayer], Contents]
) -> tuple[tuple[Contents, ...], bool]:
    """The contents of all layers, and whether they were at hand.

    Those that were not are brought in, a few at a time.

    Without this, workers that validate images with the same layers would wait
    for the first of them together, then for the second, using one core.
    """
    at_hand = [layer.contents_at_hand() for layer in layers]
    missing = [layer for layer, found in zip(layers, at_hand, strict=True) if found is None]
    brought = iter(_brought(missing, bring))
    contents = tuple(found if found is not None else next(brought) for found in at_hand)
    return contents, not missing


def _brought(layers: list[SafeLayer], bring: Callable[[SafeLayer], Contents]) -> Iterator[Contents]:
    if len(layers) < 2:
        yield from map(bring, layers)
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(layers)), "layers") as pool:
        yield from pool.map(bring, layers)
