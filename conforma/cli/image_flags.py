"""The flags of ``validate image`` (specification 1.1).

Apart from where their values go, so that a help page costs no more than it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from conforma.cli.command import Flag
from conforma.cli.gotypes import Duration, GoBool, GoDuration, GoInt, GoList

if TYPE_CHECKING:
    from conforma.cli.options import ImageOptions

DEFAULT_WORKERS: Final = 5
_CACHE: Final = ("no_cache", "cache_dir", "cache_size", "cache_verify", "cache_proof")


def _text(name: str, help_text: str, *, short: str = "", default: str = "") -> Flag:
    return Flag([f"--{name}", *([f"-{short}"] if short else [])], default=default, help=help_text)


def _bool(name: str, help_text: str, *, short: str = "", default: bool = False) -> Flag:
    return Flag(
        [f"--{name}", *([f"-{short}"] if short else [])],
        type=GoBool(),
        default=default,
        help=help_text,
    )


def image_flags() -> list[Flag]:
    """Declare the flags of ``validate image``."""
    return [
        Flag(
            ["--policy", "-p"],
            default=None,
            help="Policy configuration: inline, file, git, https or Kubernetes. Without it only "
            "signatures and attestations are checked.",
        ),
        _text("image", "One image reference to validate.", short="i"),
        _text("images", "ApplicationSnapshot: a file, or inline JSON or YAML."),
        _text("file-path", "Deprecated, use --images: an ApplicationSnapshot file.", short="f"),
        _text("json-input", "Deprecated, use --images: an inline ApplicationSnapshot.", short="j"),
        _text("snapshot", "Snapshot in Kubernetes, [NAMESPACE/]NAME."),
        _text("public-key", "Key to verify with; overrides the policy's.", short="k"),
        _text("rekor-url", "Transparency log; overrides the policy's.", short="r"),
        _bool("ignore-rekor", "Do not check the transparency log."),
        _bool("skip-image-sig-check", "Do not check image signatures."),
        _bool("skip-att-sig-check", "Take attestations without verifying them."),
        _text("certificate-identity", "Keyless: the identity in the certificate."),
        _text("certificate-identity-regexp", "Keyless: the identity as a regular expression."),
        _text("certificate-oidc-issuer", "Keyless: the OIDC issuer in the certificate."),
        _text("certificate-oidc-issuer-regexp", "Keyless: the issuer as a regular expression."),
        Flag(
            ["--output"],
            type=GoList(),
            default=(),
            help="FORMAT[=PATH][?OPTION=VALUE&...]; repeatable. Formats: json, yaml, text, "
            "appstudio, junit, html, sarif, github, summary, summary-markdown, attestation, "
            "policy-input, provenance, vsa.",
        ),
        _text("output-file", "Deprecated, use --output: JSON to this file.", short="o"),
        _bool("strict", "Fail if a component may not be released.", short="s", default=True),
        _text(
            "effective-time",
            "Judge as of now, attestation, an RFC 3339 time or YYYY-MM-DD.",
            default="now",
        ),
        _bool("allow-past-effective-time", "Permit an effective time in the past."),
        Flag(
            ["--extra-rule-data"],
            type=GoList(),
            default=(),
            help="KEY=VALUE for the ruleData of every source; repeatable.",
        ),
        _bool("info", "Show titles, descriptions and solutions of rules."),
        _bool("no-color", "Never colour text."),
        _bool("color", "Always colour text."),
        Flag(
            ["--workers"],
            type=GoInt(),
            default=DEFAULT_WORKERS,
            help="Components validated at the same time.",
        ),
        _text("filter-type", "include-exclude or ec-policy.", default="include-exclude"),
        _bool("vsa", "Make a verification summary attestation per component."),
        _text("attestation-format", "dsse or predicate, for --vsa.", default="dsse"),
        _text("attestation-output-dir", "Directory for the files of --vsa."),
        _text("vsa-signing-key", "Private key for --vsa."),
        _text("vsa-public-key", "Key that existing summaries are verified with."),
        Flag(
            ["--vsa-upload"],
            type=GoList(),
            default=(),
            help="Where summaries go and are looked for: ledger@DIR, local@DIR or rekor[@URL], each "
            "with ?PARAMETER=VALUE; repeatable.",
        ),
        Flag(
            ["--vsa-expiration"],
            type=GoDuration(),
            default=Duration(168 * 3600.0),
            help="Greatest age of an existing summary that spares validation.",
        ),
        _bool("offline", "Use no network: what no mirror has is an error that names it."),
        Flag(
            ["--mirror-from"],
            type=GoList(),
            default=(),
            help="Image layouts made by conforma mirror that are read before the network: "
            "oci:DIRECTORY or oci-archive:FILE; repeatable.",
        ),
        _bool("no-cache", "Do not cache layers on disk (EC_CACHE=false)."),
        _text("cache-dir", "Directory of the layer cache (EC_CACHE_DIR)."),
        _text("cache-size", "Limit of the layer cache, 20GiB unless given (EC_CACHE_SIZE)."),
        _text(
            "cache-verify",
            "Hash cached entries again: off, once in a run, or always; off unless given.",
        ),
        _bool(
            "cache-proof",
            "Use cached layers only where the repository is known to offer them, for a cache that "
            "several credentials share (EC_CACHE_PROOF).",
        ),
        *shown_flags(),
    ]


def shown_flags(*, hidden: bool = False) -> list[Flag]:
    """What reports show. As with the Go tool, every command of ``validate`` takes these flags.

    They are ``hidden`` from the help of one that makes no report.
    """
    flags = [
        _bool("show-successes", "Include passed rules in the report."),
        _bool("show-warnings", "Include warnings in the text report.", default=True),
        _bool("show-policy-docs-link", "End the text report with a link to the documentation."),
    ]
    for flag in flags:
        flag.hidden = hidden
    return flags


def image_options(given: Mapping[str, Any]) -> ImageOptions:
    """The options that the flags ``given`` say, the others with their defaults.

    Raises ``InputError`` for flags or variables about the cache that mean nothing.
    """
    from conforma.cli.options import ImageOptions, cache_choice

    values: dict[str, Any] = {str(flag.name): flag.default for flag in image_flags()}
    values.update(given)
    cache = cache_choice(**{name: values.pop(name) for name in _CACHE})
    return ImageOptions(cache=cache, **values)
