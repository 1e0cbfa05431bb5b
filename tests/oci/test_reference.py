from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conforma.errors import BadReference
from conforma.oci.digest import Digest
from conforma.oci.reference import Reference, is_loopback_host

D = "sha256:" + "0123456789abcdef" * 4

# As docker/reference and go-containerregistry (weak validation) read them.
GOLDEN = {
    "ubuntu": ("index.docker.io", "library/ubuntu", "latest", None),
    "ubuntu:22.04": ("index.docker.io", "library/ubuntu", "22.04", None),
    "user/app": ("index.docker.io", "user/app", "latest", None),
    "docker.io/user/app": ("index.docker.io", "user/app", "latest", None),
    "docker.io/ubuntu": ("index.docker.io", "library/ubuntu", "latest", None),
    "index.docker.io/ubuntu": ("index.docker.io", "library/ubuntu", "latest", None),
    f"ubuntu@{D}": ("index.docker.io", "library/ubuntu", None, D),
    f"ubuntu:22.04@{D}": ("index.docker.io", "library/ubuntu", "22.04", D),
    "localhost/app": ("localhost", "app", "latest", None),
    "localhost:5000/app": ("localhost:5000", "app", "latest", None),
    "localhost:5000": ("index.docker.io", "library/localhost", "5000", None),
    "registry.example:5000/a/b/c:v1": ("registry.example:5000", "a/b/c", "v1", None),
    "registry.example/a__b/c--d/e.f_g": ("registry.example", "a__b/c--d/e.f_g", "latest", None),
    "[::1]:5000/a": ("[::1]:5000", "a", "latest", None),
    "[2001:db8::1]/a:t": ("[2001:db8::1]", "a", "t", None),
    "192.0.2.1:443/a": ("192.0.2.1:443", "a", "latest", None),
    "library": ("index.docker.io", "library/library", "latest", None),
    "a.b/c": ("a.b", "c", "latest", None),
    "ab/c": ("index.docker.io", "ab/c", "latest", None),
    "Registry.Example/a": ("Registry.Example", "a", "latest", None),
}


@pytest.mark.parametrize("text", GOLDEN)
def test_references_are_read_as_docker_reads_them(text: str) -> None:
    registry, repository, tag, digest = GOLDEN[text]
    expected = Reference(registry, repository, tag, Digest.parse(digest) if digest else None)
    assert Reference.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        ":tag",
        "@",
        f"@{D}",
        "ubuntu:",
        "ubuntu@",
        "ubuntu@sha256:aa",
        f"ubuntu@{D}@{D}",
        "ubuntu@md5:" + "a" * 32,
        f"ubuntu@{D.upper()}",
        "Ubuntu",
        "user/App",
        "a b",
        " ubuntu",
        "ubuntu ",
        "ubuntu\n",
        "ubu\x00ntu",
        "a/../b",
        "../a",
        "a/./b",
        "a//b",
        "a/",
        "-a",
        "a-",
        "registry.example:99999/a",
        "registry.example:port/a",
        "registry.example/",
        "rеgistry.example/a",  # a Cyrillic letter that looks Latin
        "registry.example/a:" + "t" * 129,
        "registry.example/a:.t",
        "[::1/a",
        "[nonsense:]/a",
        "user@registry.example/a",
        "https://registry.example/a",
        "registry.example/" + "a" * 256,
        "a" * 5000,
    ],
)
def test_what_is_no_reference_is_refused_in_one_printable_line(text: str) -> None:
    with pytest.raises(BadReference) as caught:
        Reference.parse(text)
    message = caught.value.message
    assert message.startswith("could not parse reference: ")
    assert message.isprintable()
    assert len(message) < 1000
    assert caught.value.hint


component = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True)
hosts = st.one_of(
    st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){1,3}(:[1-9][0-9]{0,3})?", fullmatch=True),
    st.sampled_from(["localhost", "localhost:5000", "[::1]:5000", "index.docker.io"]),
)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
digests = st.binary(max_size=4).map(Digest.of)


@given(hosts, st.lists(component, min_size=2, max_size=4), tags, st.none() | digests)
def test_parsing_what_was_printed_gives_the_same_reference(
    registry: str, path: list[str], tag: str, digest: Digest | None
) -> None:
    reference = Reference(registry, "/".join(path), tag, digest)
    assert Reference.parse(str(reference)) == reference
    if digest is not None:
        pinned = reference.pinned(digest)
        assert Reference.parse(str(pinned)) == pinned
        assert pinned.tag is None


@given(st.text(alphabet=string.ascii_letters + string.digits + "./:@_-[]% \n", max_size=60))
@example("a:b:c/d")
@example("a@b@c")
def test_any_text_is_a_reference_that_prints_and_parses_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except BadReference:
        return
    assert Reference.parse(str(reference)) == reference
    assert reference.tag is not None or reference.digest is not None


def test_pinning_and_tagging_replace_each_other() -> None:
    reference = Reference.parse("registry.example/a:v1")
    digest = Digest.parse(D)
    assert reference.digest is None
    assert str(reference.pinned(digest)) == f"registry.example/a@{D}"
    assert reference.pinned(digest).identifier == D
    assert str(reference.pinned(digest).with_tag("x")) == "registry.example/a:x"
    assert reference.repository_name == "registry.example/a"
    with pytest.raises(BadReference, match="is not a tag"):
        reference.with_tag("a/b")


@pytest.mark.parametrize(
    ("host", "expected"),
    {
        "localhost": True,
        "LOCALHOST:5000": True,
        "app.localhost:80": True,
        "127.0.0.1:5000": True,
        "127.9.9.9": True,
        "[::1]:5000": True,
        "localhost.example": False,
        "127.0.0.1.example": False,
        "notlocalhost": False,
        "10.0.0.1": False,
        "[::2]": False,
        "registry.local": False,
    }.items(),
)
def test_loopback_is_told_by_the_name_alone(host: str, expected: bool) -> None:
    assert is_loopback_host(host) is expected
