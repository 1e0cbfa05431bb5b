from __future__ import annotations

import re

import pytest

from conforma.errors import IdentityMismatch, InputError
from conforma.trust.identity import Identity
from conforma.trust.re2 import compile_re2

ME, ISSUER = "https://id.test/me", "https://issuer.test"


def test_exact_values_and_patterns() -> None:
    for identity in (
        Identity(ISSUER, ME),
        Identity(issuer_regexp="issuer", subject_regexp="^https://id"),
        Identity(ISSUER, ME, issuer_regexp=".*", subject_regexp="me$"),
    ):
        identity.check_usable()
        identity.check(["a@b.test", ME], ISSUER)
        identity.check_bundle([ME], ISSUER)


@pytest.mark.parametrize(
    "identity",
    [
        Identity(ISSUER, "https://id.test/m"),
        Identity("https://issuer.tes", ME),
        Identity(ISSUER, ME, subject_regexp="you"),
        Identity(ISSUER, ME, issuer_regexp="^x"),
        Identity(issuer_regexp=".*", subject_regexp="^id"),
        Identity(ISSUER.upper(), ME),
        Identity(),
    ],
)
def test_everything_given_must_match(identity: Identity) -> None:
    with pytest.raises(IdentityMismatch) as refusal:
        identity.check(["a@b.test", ME], ISSUER)
    assert refusal.value.message == (
        "none of the expected identities matched what was in the certificate, "
        f"got subjects [a@b.test, {ME}] with issuer {ISSUER}"
    )
    with pytest.raises(IdentityMismatch):
        identity.check_bundle([ME], ISSUER)


@pytest.mark.parametrize(
    ("identity", "fault"),
    [
        (Identity(ISSUER, "you"), f'expected SAN value "you", got "{ME}"'),
        (Identity("x", ME), f'expected issuer value "x", got "{ISSUER}"'),
        (
            Identity(ISSUER, subject_regexp="^y"),
            f'expected SAN value to match regex "^y", got "{ME}"',
        ),
        (
            Identity(issuer_regexp="^y", subject=ME),
            f'expected issuer value to match regex "^y", got "{ISSUER}"',
        ),
    ],
)
def test_bundles_have_words_of_their_own(identity: Identity, fault: str) -> None:
    with pytest.raises(IdentityMismatch) as refusal:
        identity.check_bundle([ME], ISSUER)
    assert refusal.value.message == (
        "failed to verify certificate identity: no matching CertificateIdentity found, "
        f"last error: {fault}"
    )


def test_a_certificate_without_names_matches_nobody() -> None:
    for identity in (Identity(ISSUER, ME), Identity(ISSUER, subject_regexp="me")):
        with pytest.raises(IdentityMismatch):
            identity.check([], ISSUER)
        with pytest.raises(IdentityMismatch):
            identity.check_bundle([], ISSUER)


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        (
            Identity(),
            "certificate OIDC issuer must be provided for keyless workflow\n"
            "certificate identity must be provided for keyless workflow",
        ),
        (Identity(subject="x"), "certificate OIDC issuer must be provided for keyless workflow"),
        (Identity(issuer="x"), "certificate identity must be provided for keyless workflow"),
    ],
)
def test_keyless_needs_both_sides(identity: Identity, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        identity.check_usable()
    assert refusal.value.message == message


def test_bad_patterns_are_named() -> None:
    with pytest.raises(InputError, match=r"^malformed issuer in identity: \( : error parsing"):
        Identity(issuer_regexp="(", subject="x").check_usable()
    with pytest.raises(InputError, match=r"^malformed subject in identity: \(\?=x\) : "):
        Identity(issuer="x", subject_regexp="(?=x)").check_usable()


def test_patterns_without_anchors_are_pointed_out() -> None:
    assert Identity(issuer="x", subject_regexp="x").unanchored == ("x",)
    assert Identity(issuer_regexp="^x$", subject_regexp=r"\Ax\z").unanchored == ()


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("^a$", "a", "a\n"),
        (r"\Aa\z", "a", "a\n"),
        ("a.c", "abc", "a\nc"),
        ("(?s)a.c", "a\nc", "abb"),
        ("(?i)ABC", "abc", "ab"),
        ("(?i:A)b", "ab", "aB"),
        ("(?m)^b$", "a\nb\nc", "abc"),
        (r"\d", "1", "\u0661"),
        (r"\w", "a", "\u00e9"),
        ("[[:alpha:]]", "a", "1"),
        ("[^[:digit:]x]", "a", "1x"),
        (r"\Qa.b\Ec", "a.bc", "axbc"),
        (r"\Qa.b", "a.b", "axb"),
        ("(?P<n>a)b", "ab", "a"),
        ("(?<n>a)b", "ab", "a"),
        ("[]a]", "]", "b"),
        ("[a&&b]", "&", "c"),
        (r"a\.b", "a.b", "axb"),
        ("a{2}", "aa", "a"),
        ("a*?b", "b", "a"),
        (r"[\w.]+@x", "a.b@x", "x"),
    ],
)
def test_patterns_mean_what_re2_means(pattern: str, matching: str, other: str) -> None:
    compiled = compile_re2(pattern)
    assert compiled.search(matching)
    assert not compiled.search(other)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)",
        "(?!a)",
        "(?<=a)b",
        "(?<!a)b",
        "(?>a)",
        r"(a)\1",
        "(?P=n)",
        "(?#x)",
        "(?(1)a|b)",
        "(?U)a",
        "(?x)a b",
        "a(?i)b",
        r"\pL",
        r"\Z",
        r"\G",
        "a++",
        "a*+",
        "a**",
        "a{2}+",
        "[a",
        "[[:nope:]]",
        "(",
        "a{2}{3}(",
        "a" * 5000,
        "\\",
    ],
)
def test_what_only_one_engine_knows_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^\S"):
        compile_re2(pattern)


def test_every_compiled_pattern_is_ascii() -> None:
    assert compile_re2("a").flags & re.ASCII
