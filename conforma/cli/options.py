"""The flags of ``validate image`` and how their values are handed on (specification 1.1)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from conforma.cli.command import Flag
from conforma.cli.gotypes import Duration, GoBool, GoDuration, GoInt, GoList
from conforma.errors import InputError
from conforma.gotext import parse_bool, quoted


@dataclass(frozen=True, slots=True)
class Globals:
    """The flags of the root command."""

    quiet: bool
    verbose: bool
    debug: bool
    trace: tuple[str, ...]
    logfile: str
    timeout: Duration
    kubeconfig: str
    retry_max_wait: Duration
    retry_max_retry: int
    retry_duration: Duration
    retry_factor: float
    retry_jitter: float
    insecure_registry: tuple[str, ...]
    registry_mirror: tuple[str, ...]
    registry_rate: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """The flags of ``validate image``, by the names they have on the command line.

    ``policy`` is ``None`` if the flag was not given, which is not the same as empty.
    """

    policy: str | None
    image: str
    images: str
    file_path: str
    json_input: str
    snapshot: str
    public_key: str
    rekor_url: str
    ignore_rekor: bool
    skip_image_sig_check: bool
    skip_att_sig_check: bool
    certificate_identity: str
    certificate_identity_regexp: str
    certificate_oidc_issuer: str
    certificate_oidc_issuer_regexp: str
    output: tuple[str, ...]
    output_file: str
    strict: bool
    effective_time: str
    allow_past_effective_time: bool
    extra_rule_data: tuple[str, ...]
    info: bool
    no_color: bool
    color: bool
    workers: int
    filter_type: str
    vsa: bool
    attestation_format: str
    attestation_output_dir: str
    vsa_signing_key: str
    vsa_public_key: str
    vsa_upload: tuple[str, ...]
    vsa_expiration: Duration
    cache: CacheChoice
    offline: bool
    mirror_from: tuple[str, ...]
    show_successes: bool
    show_warnings: bool
    show_policy_docs_link: bool


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """Whether layers are cached, where, and up to how many bytes; ``None``: the default."""

    enabled: bool = True
    directory: str | None = None
    max_bytes: int | None = None


DEFAULT_WORKERS: Final = 5
_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": 1_000,
    "kb": 1_000,
    "m": 1_000**2,
    "mb": 1_000**2,
    "g": 1_000**3,
    "gb": 1_000**3,
    "t": 1_000**4,
    "tb": 1_000**4,
    "ki": 1 << 10,
    "kib": 1 << 10,
    "mi": 1 << 20,
    "mib": 1 << 20,
    "gi": 1 << 30,
    "gib": 1 << 30,
    "ti": 1 << 40,
    "tib": 1 << 40,
}


def cache_choice(*, no_cache: bool, cache_dir: str, cache_size: str) -> CacheChoice:
    """The cache that flags and environment ask for; flags win.

    ``EC_CACHE`` is a boolean and ``EC_CACHE_SIZE`` a number of bytes with an
    optional unit; the cache itself knows ``EC_CACHE_DIR``. Raises ``InputError``.
    """
    enabled = not no_cache
    if enabled and (wanted := os.environ.get("EC_CACHE", "")):
        try:
            enabled = parse_bool(wanted)
        except InputError as error:
            raise InputError(f"EC_CACHE: {error.message}") from None
    size = cache_size or os.environ.get("EC_CACHE_SIZE", "")
    return CacheChoice(
        enabled=enabled,
        # Unlike pathlib's, it leaves a ~name that nobody has as it is.
        directory=os.path.expanduser(cache_dir) or None,  # noqa: PTH111
        max_bytes=_bytes(size, "--cache-size" if cache_size else "EC_CACHE_SIZE") if size else None,
    )


def _bytes(text: str, source: str) -> int:
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = _UNITS.get(text[len(digits) :].strip().lower())
    try:
        size = float(digits) * unit if unit is not None else -1.0
    except ValueError:
        size = -1.0
    if not 0 < size < 1 << 60:
        raise InputError(
            f"{source}: {quoted(text)} is not a size", hint="write it as 500MB, 20GiB or in bytes"
        )
    return int(size)


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
            "policy-input, vsa.",
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
        _text("cache-size", "Limit of the layer cache, as 20GiB (EC_CACHE_SIZE)."),
        _bool("show-successes", "Include passed rules in the report."),
        _bool("show-warnings", "Include warnings in the text report.", default=True),
        _bool("show-policy-docs-link", "End the text report with a link to the documentation."),
    ]
