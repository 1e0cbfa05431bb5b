"""When each entry was last used, and what it was called: facts, kept in diskcache.

Losing them costs recency, and the totals of earlier runs, and nothing else. All
access goes through one thread, so no reader of a layer ever waits for the
database; an entry in constant use costs one write a minute, a run one more.
"""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from conforma.cache.disk import Key
from conforma.cache.forked import renew_in_children
from conforma.cache.totals import Totals

Answer = TypeVar("Answer")

INTERVAL: Final = 60.0
"""Seconds between two writes about the same entry."""
_PATIENCE: Final = 5.0
_CROWD: Final = 0.1
"""Seconds in which more notes may come that are then written together."""
_TOTALS: Final = "totals"
"""No key of an entry: those have an area."""


class Fact(Struct, frozen=True):
    """What the index says about an entry.

    ``used``, and ``checked`` (0: never, since it was stored), are in seconds since the epoch.
    """

    used: float
    media_type: str = ""
    checked: float = 0.0


class Index:
    """The facts of one cache directory.

    Every fault of the database is survived: the facts are then those of this
    process alone. ``clock`` gives the time.
    """

    def __init__(
        self, directory: Path, *, writable: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._directory = directory
        self._writable = writable
        self._clock = clock
        self._noted: dict[str, float] = {}
        self._checked: dict[str, float] = {}
        self._tasks: queue.SimpleQueue[Callable[[Any], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self._lock = threading.Lock()
        self._closed = False
        self.writes = 0
        renew_in_children(self)

    def used(self, key: Key, media_type: str = "") -> None:
        """Note that an entry was read or made. Returns at once."""
        name, now = str(key), self._clock()
        last = self._noted.get(name)
        # A clock that was set back must not silence us until it has caught up.
        if (last is not None and abs(now - last) < INTERVAL) or not self._writable:
            return
        self._noted[name] = now
        checked = self._checked.pop(name, 0.0)
        fact = Fact(now, media_type, checked)
        self._ask(lambda database: self._note(database, name, fact), hurry=False)

    def checked(self, key: Key) -> None:
        """Note that an entry was hashed and is right; written with its next use, or at the end."""
        if self._writable:
            self._checked[str(key)] = self._clock()

    def forget(self, key: Key) -> None:
        """Note that an entry is gone."""
        name = str(key)
        self._noted.pop(name, None)
        self._ask(lambda database: database.pop(name, None))

    def facts(self) -> dict[str, Fact]:
        """All facts, by the text of the key; those of this process if there is no database."""
        found = {name: Fact(used) for name, used in list(self._noted.items())}
        return {**found, **self._answer(_stored, {})}

    def fact(self, key: Key) -> Fact | None:
        """The fact about one entry, if there is one."""
        name = str(key)
        return self._answer(lambda database: _parse(database.get(name)), None)

    def add(self, totals: Totals) -> None:
        """Add what a run has counted to what all runs have. Returns at once."""

        def note(database: Any) -> None:
            # Waits for whoever else is writing: a count that is dropped is wrong for good.
            with database.transact(retry=True):
                database[_TOTALS] = Totals.parse(database.get(_TOTALS)).plus(totals).as_text()

        if self._writable:
            self._ask(note)

    def totals(self) -> Totals:
        """What all runs that have ended have counted."""
        return self._answer(lambda database: Totals.parse(database.get(_TOTALS)), Totals())

    def close(self) -> None:
        """Write what is waiting to be written. What is noted or asked later is not."""
        while self._checked:
            name, moment = self._checked.popitem()
            self._ask(partial(self._note, name=name, fact=Fact(0.0, "", moment)))
        with self._lock:
            # Whoever evicts may still ask; a second thread for that would take our word to end.
            self._closed = True
            thread, self._thread = self._thread, None
            self._tasks.put(None)
        if thread is not None:
            self._hurry.set()
            thread.join(_PATIENCE)

    def reset_after_fork(self) -> None:
        """In a forked child the thread does not exist."""
        self._thread = None
        self._tasks = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._lock = threading.Lock()

    def _answer(self, question: Callable[[Any], Answer], otherwise: Answer) -> Answer:
        """What the database says; ``otherwise`` if there is none, it fails or takes too long."""
        answer: queue.SimpleQueue[Answer] = queue.SimpleQueue()

        def ask(database: Any) -> None:
            try:
                answer.put(question(database))
            except Exception:
                answer.put(otherwise)
                raise

        if self._writable and self._ask(ask):
            with contextlib.suppress(queue.Empty):
                return answer.get(timeout=_PATIENCE)
        return otherwise

    def _ask(self, task: Callable[[Any], None], *, hurry: bool = True) -> bool:
        """Have the thread do it; ``False`` if the index is closed and nobody will."""
        with self._lock:
            if self._closed:
                return False
            self._tasks.put(task)
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="cache index", daemon=True)
                with contextlib.suppress(RuntimeError):  # no thread to be had: the next task tries
                    thread.start()
                    self._thread = thread
        if hurry:
            self._hurry.set()
        return True

    def _serve(self) -> None:
        database = self._open()
        ended = False
        while not ended:
            tasks = [self._tasks.get()]
            # Each transaction costs more than what a note writes in it, and each
            # time we wake up, those who read layers wait for the interpreter.
            self._hurry.wait(_CROWD)
            self._hurry.clear()
            with contextlib.suppress(queue.Empty):
                while True:
                    tasks.append(self._tasks.get_nowait())
            ended = None in tasks
            database = _served(database, [task for task in tasks if task is not None])
        with contextlib.suppress(Exception):
            database.close()

    def _open(self) -> Any:
        try:
            from conforma.cache.index_disk import is_damaged, opened
        except OSError:
            return {}  # not even a descriptor to load the module with
        for _ in range(2):
            try:
                return opened(self._directory, eviction_policy="none", cull_limit=0)
            except Exception as error:
                if not is_damaged(error):
                    break
                shutil.rmtree(self._directory, ignore_errors=True)
        return {}

    def _note(self, database: Any, name: str, fact: Fact) -> None:
        stored = _parse(database.get(name))
        if stored is not None:
            fact = Fact(
                fact.used or stored.used,
                fact.media_type or stored.media_type,
                max(fact.checked, stored.checked),
            )
            known = abs(fact.used - stored.used) < INTERVAL
            if known and replace(stored, used=fact.used) == fact:
                return  # another process has said so
        self.writes += 1
        database[name] = json.dumps([fact.used, fact.media_type, fact.checked])


def _served(database: Any, tasks: list[Callable[[Any], None]]) -> Any:
    """Run the tasks in one transaction; returns the database that is left."""
    left = iter(tasks)
    try:
        with contextlib.nullcontext() if isinstance(database, dict) else database.transact():
            for task in left:
                task(database)
    except Exception:
        # Damaged, locked for too long, full disk: all the same to us.
        database = {}
        for task in left:
            with contextlib.suppress(Exception):
                task(database)
    return database


def _stored(database: Any) -> dict[str, Fact]:
    """The facts that can be read."""
    found: dict[str, Fact] = {}
    with contextlib.suppress(Exception):
        for name in database:
            fact = _parse(database.get(name))
            if fact is not None:
                found[name] = fact
    return found


def _parse(text: object) -> Fact | None:
    if not isinstance(text, str):
        return None
    try:
        used, media_type, *checked = json.loads(text)
        return Fact(float(used), str(media_type), *map(float, checked[:1]))
    except (ValueError, TypeError):
        return None
