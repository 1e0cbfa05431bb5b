"""The table of promises in ``DESIGN.md`` names, for each, tests that exist."""

import re
from pathlib import Path

import pytest

import conforma.cache

ROOT = Path(__file__).parents[2]
DESIGN = Path(conforma.cache.__file__).parent / "DESIGN.md"
ROWS = dict(re.findall(r"^\| (\d+) \| (.*) \|$", DESIGN.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_table_has_all_41_promises() -> None:
    assert list(map(int, ROWS)) == list(range(1, 42))


@pytest.mark.parametrize("number", range(1, 42))
def test_each_promise_has_a_test_that_is_named_after_it(number: int) -> None:
    files = re.findall(r"`(tests/\S+\.py)`", ROWS[str(number)])
    assert files
    for file in files:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^def test_lc_0?{number}_", text, re.MULTILINE), file
