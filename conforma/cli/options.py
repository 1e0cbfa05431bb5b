"""The values of flags, as they are handed on."""

from __future__ import annotations

import os
from typing import Final, Literal, cast

from msgspec import Struct

from conforma.cli.gotypes import Duration
from conforma.errors import InputError
from conforma.gotext import parse_bool, quoted


class Globals(Struct, frozen=True):
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


class ImageOptions(Struct, frozen=True):
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


class CacheChoice(Struct, frozen=True):
    """Whether layers are cached, where, and up to how many bytes; ``None``: the default."""

    enabled: bool = True
    directory: str | None = None
    max_bytes: int | None = None
    verify: Literal["off", "once", "always"] = "off"
    proof: bool = False


_VERIFY: Final = ("off", "once", "always")
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


def cache_choice(
    *,
    no_cache: bool,
    cache_dir: str,
    cache_size: str,
    cache_verify: str = "",
    cache_proof: bool = False,
) -> CacheChoice:
    """The cache that flags and environment ask for; flags win.

    ``EC_CACHE`` and ``EC_CACHE_PROOF`` are booleans and ``EC_CACHE_SIZE`` a
    number of bytes with an optional unit; the cache itself knows
    ``EC_CACHE_DIR``. Raises ``InputError``.
    """
    enabled = not no_cache and _switch("EC_CACHE", default=True)
    if cache_verify not in ("", *_VERIFY):
        raise InputError(f"invalid --cache-verify: {cache_verify} (valid: {', '.join(_VERIFY)})")
    size = cache_size or os.environ.get("EC_CACHE_SIZE", "")
    return CacheChoice(
        enabled=enabled,
        # Unlike pathlib's, it leaves a ~name that nobody has as it is.
        directory=os.path.expanduser(cache_dir) or None,  # noqa: PTH111
        max_bytes=_bytes(size, "--cache-size" if cache_size else "EC_CACHE_SIZE") if size else None,
        verify=cast(Literal["off", "once", "always"], cache_verify or "off"),
        proof=cache_proof or _switch("EC_CACHE_PROOF", default=False),
    )


def _switch(variable: str, *, default: bool) -> bool:
    wanted = os.environ.get(variable, "")
    if not wanted:
        return default
    try:
        return parse_bool(wanted)
    except InputError as error:
        raise InputError(f"{variable}: {error.message}") from None


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
