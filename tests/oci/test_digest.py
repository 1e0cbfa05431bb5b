from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.errors import BadDigest, DigestMismatch, SizeMismatch
from conforma.oci.digest import ALGORITHMS, DiffID, Digest, Hasher, verified


@given(st.sampled_from(sorted(ALGORITHMS)), st.binary(max_size=200))
def test_parsing_what_was_printed_gives_the_same_digest(algorithm: str, data: bytes) -> None:
    digest = Digest.of(data, algorithm)
    assert Digest.parse(str(digest)) == digest
    assert digest.hex == hashlib.new(algorithm, data).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 63 + "\n",
        "sha256:../../../../" + "a" * 50,
        "md5:" + "a" * 32,
        "SHA256:" + "a" * 64,
        "sha512:" + "a" * 64,
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(BadDigest):
        Digest.parse(text)


def test_a_diff_id_never_equals_a_digest() -> None:
    digest, diff_id = Digest.of(b"x"), DiffID.of(b"x")
    assert str(digest) == str(diff_id)
    assert digest != diff_id
    assert len({digest, diff_id}) == 2


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_verified_passes_the_promised_bytes_through(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    assert b"".join(verified(chunks, Digest.of(data), len(data), "x")) == data
    assert b"".join(verified(chunks, Digest.of(data), None, "x")) == data


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=10), st.data())
def test_verified_never_yields_more_than_declared(chunks: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(chunks)
    size = data.draw(st.integers(0, len(whole) - 1))
    received = 0
    with pytest.raises(SizeMismatch, match=f"layer 7: more bytes than the {size}"):
        for chunk in verified(chunks, Digest.of(whole), size, "layer 7"):
            received += len(chunk)
    assert received <= size


def test_verified_raises_for_missing_and_for_changed_bytes() -> None:
    with pytest.raises(SizeMismatch, match="it: got 2 bytes where 3 were declared"):
        list(verified([b"ab"], Digest.of(b"ab"), 3, "it"))
    with pytest.raises(DigestMismatch, match=f"it: digest mismatch: expected {Digest.of(b'ab')}"):
        list(verified([b"a", b"c"], Digest.of(b"ab"), 2, "it"))


def test_a_hasher_knows_at_any_moment_whether_it_has_seen_everything() -> None:
    hasher = Hasher(DiffID.of(b"abc"))
    hasher.update(b"a")
    assert not hasher.matches()
    hasher.update(memoryview(b"bc"))
    assert hasher.matches()
    assert hasher.size == 3
