"""The search for secrets finds them wherever a test could have read them."""

from __future__ import annotations

import base64
import logging
import subprocess
import sys

import pytest

from conforma.errors import InputError
from conforma.serve.auth import BearerAuth
from tests.canary import CANARY, secrets_in, told

PASSWORD = f"{CANARY}of-this-test"


@pytest.mark.parametrize("user", ["", "m", "me", "you"])
def test_passwords_are_found_as_they_travel(user: str) -> None:
    encoded = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
    assert secrets_in(f"Authorization: Basic {encoded}")
    assert secrets_in(f"https://{user}:{PASSWORD}@r.example/")
    assert not secrets_in(base64.b64encode(f"{user}:another".encode()).decode())


def test_errors_are_searched_even_if_nobody_shows_them() -> None:
    with pytest.raises(InputError):
        raise InputError("of no interest", hint=f"try {PASSWORD}")
    assert told.secrets() == [CANARY]
    assert told.secrets() == []


def test_what_a_test_reads_itself_is_searched(capsys: pytest.CaptureFixture[str]) -> None:
    print(PASSWORD)
    capsys.readouterr()
    assert told.secrets() == [CANARY]


def test_log_lines_and_their_tracebacks_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest's own account of the log would tell on this test.
    monkeypatch.setattr(logging.getLogger("conforma"), "propagate", False)
    logger = logging.getLogger("conforma.somewhere")
    try:
        raise ValueError(PASSWORD)
    except ValueError:
        logger.debug("quiet", exc_info=True)
    assert told.secrets() == [CANARY]
    logger.debug("fields", extra={"fields": {"url": PASSWORD}})
    assert told.secrets() == [CANARY]


def test_output_of_our_own_children_is_searched() -> None:
    code = f"import conforma, sys; sys.exit({PASSWORD!r})"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert told.secrets() == [CANARY]


def test_tokens_are_searched_for() -> None:
    issued = BearerAuth().issue(None, "repository:app:pull")
    assert issued is not None
    told.note(f"a line with {issued['token']} in it")
    assert told.secrets() == ["a token"]
