"""Log lines have the format of the Go tool and cannot be forged."""

from __future__ import annotations

import logging
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from conforma.cli import logs
from conforma.cli.options import Globals


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    logger = logging.getLogger("conforma")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def start(**flags: object) -> None:
    values: dict[str, object] = {
        "quiet": False, "verbose": False, "debug": False, "trace": frozenset(), "logfile": "",
    }  # fmt: skip
    logs.start(**(values | flags))  # type: ignore[arg-type]


def lines(text: str) -> list[str]:
    return [
        re.sub(r'^time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)" ', "", line)
        for line in text.splitlines()
    ]


def test_a_line_looks_like_this(capsys: pytest.CaptureFixture[str]) -> None:
    start()
    log = logging.getLogger("conforma.anything")
    log.warning("Image signature check skipped")
    log.error(
        "failed", extra={"fields": {"purl": "x-y", "function": "ec.purl.parse", "error": 'a "b"'}}
    )
    log.info("not at this level")
    assert lines(capsys.readouterr().err) == [
        'level=warning msg="Image signature check skipped"',
        'level=error msg=failed error="a \\"b\\"" function=ec.purl.parse purl=x-y',
    ]


def test_a_message_cannot_start_another_line(capsys: pytest.CaptureFixture[str]) -> None:
    start()
    logging.getLogger("conforma.x").warning('a\ntime="now" level=fatal\x1b[31m')
    assert lines(capsys.readouterr().err) == [
        'level=warning msg="a\\ntime=\\"now\\" level=fatal\\x1b[31m"'
    ]


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ({}, ["error", "warning"]),
        ({"quiet": True}, ["error"]),
        ({"verbose": True}, ["error", "warning", "info", "debug"]),
        ({"quiet": True, "verbose": True}, ["error", "warning", "info", "debug"]),
        ({"trace": frozenset({"opa"})}, ["error", "warning", "info", "debug", "trace"]),
        (
            {"trace": frozenset({"log"}), "quiet": True},
            ["error", "warning", "info", "debug", "trace"],
        ),
    ],
)
def test_the_most_talkative_flag_wins(
    flags: dict[str, object], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    start(**flags)
    log = logging.getLogger("conforma.x")
    for level in (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG, logs.TRACE):
        log.log(level, "m")
    found = [line.split()[0].removeprefix("level=") for line in lines(capsys.readouterr().err)]
    assert found == shown


def test_debug_tells_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    start(debug=True)
    logging.getLogger("conforma.x").debug("m")
    assert re.search(
        r"level=debug msg=m func=test_logs\.test_debug_tells_the_place file=\"test_logs.py:\d+\"",
        capsys.readouterr().err,
    )


def test_a_log_file_is_private_and_appended_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log"
    for text in ("first", "second"):
        start(logfile=str(file))
        logging.getLogger("conforma.x").warning(text)
    assert lines(file.read_text()) == ["level=warning msg=first", "level=warning msg=second"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert capsys.readouterr().err == ""


def test_an_unusable_log_file_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(logfile=str(tmp_path / "no" / "log"))
    logging.getLogger("conforma.x").warning("shown")
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        f'Unable to create log file "{tmp_path}/no/log", log lines will appear on standard error. '
        f"Error was: open {tmp_path}/no/log: no such file or directory"
    )
    assert second.endswith("level=warning msg=shown")


@pytest.mark.parametrize(
    ("values", "categories"),
    [
        (["none"], set()),
        (["log"], {"log"}),
        (["OPA ", "spam"], {"opa"}),
        (["opa", "none"], set()),
        (["cpu", "all"], {"perf", "cpu", "mem", "opa", "log"}),
        (["true"], {"log"}),
        (["false"], set()),
        ([""], {"log"}),
    ],
)
def test_trace_categories(values: list[str], categories: set[str]) -> None:
    assert logs.trace_categories(values) == categories


def test_what_cannot_be_traced_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    start(trace=frozenset({"cpu", "mem"}))
    assert lines(capsys.readouterr().err) == [
        'level=warning msg="--trace=cpu,mem: profiles are not available"'
    ]


def test_the_global_flags_decide(capsys: pytest.CaptureFixture[str]) -> None:
    flags: dict[str, object] = dict.fromkeys(Globals.__struct_fields__, "")
    settings = Globals(**(flags | {"debug": True, "trace": ("opa", "log")}))  # type: ignore[arg-type]
    assert logs.start_as(settings) == {"opa", "log"}
    logging.getLogger("conforma.x").log(logs.TRACE, "seen")
    assert "msg=seen func=" in capsys.readouterr().err


def test_a_log_file_on_a_full_disk_is_told_once_and_loses_no_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    start(logfile="/dev/full")
    log = logging.getLogger("conforma.x")
    log.warning("first")
    log.warning("second")
    told, *rest = capsys.readouterr().err.splitlines()
    assert told == (
        'Unable to write log file "/dev/full", further log lines will appear on standard error. '
        "Error was: write /dev/full: no space left on device"
    )
    assert lines("\n".join(rest)) == ["level=warning msg=first", "level=warning msg=second"]
