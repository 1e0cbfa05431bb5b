"""A module that another thread failed to load, for want of a file, is no bug of ours."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path

import pytest

from conforma.validate.exhaustion import explained
from tests.oci.scenery import until

MODULE = """
import errno, half_gate
half_gate.begun.set()
half_gate.go_on.wait(20)
raise OSError(errno.EMFILE, "Too many open files", "half_loaded.py")
"""


class Attempt(threading.Thread):
    """Imports a name of the module and keeps what that raised."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            exec("from half_loaded import name", {})
        except BaseException as error:
            self.error = error


def test_who_waited_for_a_module_that_could_not_be_loaded_met_a_shortage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_loaded.py").write_text(MODULE)
    (tmp_path / "half_gate.py").write_text(
        "import threading\nbegun, go_on = threading.Event(), threading.Event()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    gate = importlib.import_module("half_gate")
    first = Attempt()
    assert gate.begun.wait(20)
    second = Attempt()
    # Where the interpreter notes what each thread waits for: a lock, from 3.12 on a list of them.
    blocked = importlib._bootstrap._blocking_on  # type: ignore[attr-defined]
    until(lambda: blocked.get(second.ident))
    gate.go_on.set()
    first.join(20)
    second.join(20)
    monkeypatch.delitem(sys.modules, "half_gate")
    assert isinstance(first.error, OSError)
    assert isinstance(second.error, ImportError)
    told = explained(second.error)
    assert told is not None and told.message == "half_loaded could not be loaded"
    assert told.hint is not None and "raise the limits" in told.hint
    told = explained(first.error)
    assert told is not None and told.message == "half_loaded.py: too many open files"


def test_a_missing_module_is_a_bug() -> None:
    with pytest.raises(ImportError) as caught:
        importlib.import_module("conforma.no_such_module")
    assert explained(caught.value) is None
