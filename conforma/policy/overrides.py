"""What the command line changes in a policy configuration (sections 2.4 and 2.8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from conforma.errors import ConformaError, InputError
from conforma.policy.config import Identity, PolicyConfig


class Settings(Struct, frozen=True):
    """A configuration after all overrides.

    Either ``config.public_key`` is set and ``identity`` is ``None``, or the
    workflow is keyless and ``identity`` says whose certificate is believed.
    ``config.identity`` stays what the document said, which the report repeats.
    """

    config: PolicyConfig
    identity: Identity | None


def apply_overrides(
    config: PolicyConfig,
    *,
    rekor_url: str = "",
    public_key: str = "",
    identity: Identity | None = None,
) -> Settings:
    """Apply ``--rekor-url``, ``--public-key`` and the four certificate flags.

    An identity on the command line replaces the document's as a whole, and its
    public key as well unless another key is given. Raises ``InputError`` when
    neither a key nor a complete identity remains.
    """
    given = identity or Identity()
    key = public_key or ("" if given else config.public_key)
    config = replace(config, rekor_url=rekor_url or config.rekor_url, public_key=key)
    if key:
        return Settings(config, None)
    believed = given or config.identity or Identity()
    missing = []
    if not (believed.issuer or believed.issuer_regexp):
        missing.append("certificate OIDC issuer must be provided for keyless workflow")
    if not (believed.subject or believed.subject_regexp):
        missing.append("certificate identity must be provided for keyless workflow")
    if missing:
        raise InputError(
            "\n".join(missing),
            hint="give --public-key, or --certificate-identity and --certificate-oidc-issuer",
        )
    return Settings(config, believed)


def add_rule_data(
    config: PolicyConfig, flags: Iterable[str], read: Callable[[str], str]
) -> tuple[PolicyConfig, tuple[InputError, ...]]:
    """Add each ``key=value`` of ``--extra-rule-data`` to the rule data of every source group.

    ``read`` turns a value that names a file or a URL into its content; the
    result is always kept as a string. All problems are returned, once for
    every source group as the Go tool reports them; the configuration is then
    not to be used. Without source groups nothing is looked at.
    """
    groups, problems = [], []
    for group in config.sources:
        values: dict[str, str] = {}
        for number, flag in enumerate(flags):
            key, equals, value = flag.partition("=")
            if not equals:
                problems.append(InputError(f"incorrect syntax for --extra-rule-data {number}"))
                continue
            try:
                values[key] = read(value)
            except ConformaError as cause:
                problems.append(_unreadable(cause))
        groups.append(group.with_rule_data(values) if values else group)
    return replace(config, sources=tuple(groups)), tuple(problems)


def _unreadable(cause: ConformaError) -> InputError:
    problem = InputError(f"unable to load data from extraRuleData: {cause}", hint=cause.hint)
    problem.exit_status = cause.exit_status  # an outage stays one
    problem.__cause__ = cause
    return problem
