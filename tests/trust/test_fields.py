"""Members of JSON documents that strangers wrote are taken as they stand, or not at all."""

from __future__ import annotations

import pytest

from conforma.errors import BadEvidence
from conforma.trust.fields import an_integer


@pytest.mark.parametrize(("value", "number"), [(7, 7), ("7", 7), (2**53 - 1, 2**53 - 1)])
def test_numbers_may_stand_in_strings_as_protobuf_writes_them(value: object, number: int) -> None:
    assert an_integer(value, "entry") == number


@pytest.mark.parametrize(
    "value", [-1, 1.0, True, None, "", "x", "²", 2**53, "0" * 20 + "12345", "9" * 5000]
)
def test_what_is_no_number_of_ours_is_refused_and_never_cut_short(value: object) -> None:
    with pytest.raises(BadEvidence, match="is not an index, a size or a time"):
        an_integer(value, "entry")
