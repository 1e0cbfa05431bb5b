"""References and snapshots that cannot be used."""

from __future__ import annotations

import json

import pytest

from tests.cli.bad_release import (
    BAD,
    GOOD,
    BadRelease,
    assert_clean,
    assert_refused,
    assert_violated,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("UPPER/case:1", "is not a repository name"),
        ("", "could not parse reference: : there is none"),
        ("a b", "is not a repository name"),
        ("reg.example/../x:1", "is not a repository name"),
        ("http://reg.example/x", "'http:' is not a registry host"),
        ("reg.example/x@sha256:12", "sha256 takes 64 lower-case hex digits"),
        ("reg.example/x@sha256:" + "A" * 64, "sha256 takes 64 lower-case hex digits"),
        ("reg.example/x@md5:" + "0" * 32, "unsupported algorithm"),
        ("r\u0435gistry.example/x", "is not a registry host"),  # a Cyrillic letter
        ("x\x1b[31m\x00\n", "is not a repository name"),
        ("x" * 5000, "is not a repository name"),
    ],
)
def test_a_reference_that_is_none_hides_nobody(
    release: BadRelease, reference: str, reason: str
) -> None:
    release.name(reference)
    done = release.run()
    assert done.status == 1
    bad = done.component(BAD)
    assert bad["success"] is False
    assert reason in bad["error"]
    assert done.component(GOOD)["success"] is True
    assert reason in done.err
    assert "hint: write it as registry/repository:tag" in done.err
    assert "\x1b" not in done.err and "\x00" not in done.err
    assert_clean(done)


def test_an_image_that_is_not_there(release: BadRelease) -> None:
    release.name(release.shop.reference("none"))
    assert_violated(
        release.run(), "builtin.image.accessible", "Image URL is not accessible: ", "404 Not Found"
    )


SNAPSHOTS: dict[str, tuple[str, list[str]]] = {
    "no-document": ("{{{", ["unable to parse Snapshot specification from {{{: "]),
    "text": ("release.yml", ["must be an object, not text", "taken as a file, release.yml could"]),
    "list": ("[1]", ["the document must be an object, not a list"]),
    "no-components": ("components: []", ["the snapshot has no components"]),
    "nothing": ("{}", ["the snapshot has no components"]),
    "same-name": (
        json.dumps({"components": [{"name": "a", "containerImage": f"x/{i}"} for i in range(2)]}),
        ['two components named "a": x/0 and x/1', "give every component a name of its own"],
    ),
    "name": ('{"components": [{"name": 7}]}', ["name in components[0] must be text"]),
    "component": ('{"components": ["x"]}', ["components[0] must be an object, not text"]),
    "same-key": ('{"components": [], "components": []}', ['key "components" already set']),
    "deep": ('{"components": ' + "[" * 100_000, ["unable to parse Snapshot specification"]),
    "aliases": (
        "a: &a [x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n"
            for old, new in zip("abcdefg", "bcdefgh", strict=True)
        )
        + "components: [*h]\n",
        ["excessive aliasing"],
    ),
}


@pytest.mark.parametrize("case", SNAPSHOTS)
def test_a_snapshot_that_is_none(release: BadRelease, case: str) -> None:
    text, words = SNAPSHOTS[case]
    done = release.run(images=text)
    assert_refused(done, *words)
    assert len(done.err) < 2000
    assert not list(release.shop.server.log), "nothing was asked of a registry"


def test_the_wrong_file_is_named_and_not_shown(release: BadRelease) -> None:
    file = release.shop.directory / "config.json"
    file.write_text(" " * 1000 + '{"auths": {"reg.example": {"auth": "s3cret"}}')
    for flag in ("images", "file_path"):
        done = release.run(**{"images": "", flag: str(file)})
        assert_refused(done, "unable to parse Snapshot", f"the text was read from {file}")


def test_a_file_that_is_no_text(release: BadRelease) -> None:
    file = release.shop.directory / "snapshot.bin"
    file.write_bytes(b"\xff\xfe{\x00}\x00")
    for flag in ("images", "file_path"):
        done = release.run(**{"images": "", flag: str(file)})
        assert_refused(done, f"open {file}: not UTF-8 text")


def test_names_cannot_command_a_terminal(release: BadRelease) -> None:
    release.shop.components[0]["name"] = "a\x00b\x1b[31m\u202e\ud800\n::error::x"
    done = release.run(output="text")
    assert done.status == 0
    assert not {"\x00", "\x1b", "\u202e"} & set(done.out)
    assert not any(line.startswith("::error::") for line in done.out.splitlines())
    assert_clean(done)
