"""What a policy configuration says, as values.

A configuration names sources of rules and data in groups, says which rules of
each group count, and whose signatures are believed. Reading one is pure; where
its text comes from is the business of :mod:`conforma.policy.locate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from conforma import yamljson
from conforma.errors import BadPolicyConfig, InputError
from conforma.policy.schema import SCHEMA, first_problem
from conforma.policy.source_group import Patterns, SourceGroup, without_empty

_SPEC_KEYS: Final = frozenset(SCHEMA["$defs"]["Spec"]["properties"])


class Identity(Struct, frozen=True):
    """Whose certificate is believed, exactly or by regular expression."""

    subject: str = ""
    subject_regexp: str = ""
    issuer: str = ""
    issuer_regexp: str = ""

    def __bool__(self) -> bool:
        """Whether it says anything at all."""
        return bool(self.subject or self.subject_regexp or self.issuer or self.issuer_regexp)

    @classmethod
    def parse(cls, members: Mapping[str, Any]) -> Identity:
        """Read an object that conforms to the schema."""
        names = ("subject", "subjectRegExp", "issuer", "issuerRegExp")
        return cls(*(members.get(name, "") for name in names))

    def as_dict(self) -> dict[str, Any]:
        """As the report prints it (section 2.7)."""
        return without_empty(
            subject=self.subject,
            subjectRegExp=self.subject_regexp,
            issuer=self.issuer,
            issuerRegExp=self.issuer_regexp,
        )


class PolicyConfig(Struct, frozen=True):
    """A whole policy configuration, with or without the settings of the command line."""

    name: str = ""
    description: str = ""
    sources: tuple[SourceGroup, ...] = ()
    configuration: Patterns | None = None
    rekor_url: str = ""
    public_key: str = ""
    identity: Identity | None = None

    @classmethod
    def parse(cls, text: str) -> PolicyConfig:
        """Read a document in YAML or JSON: a cluster record or a bare specification.

        An empty text is the empty configuration. Raises ``BadPolicyConfig``
        for text that is no document or contradicts the schema.
        """
        if not text:
            return cls()
        try:
            document = yamljson.parse(text)
        except InputError as cause:
            raise BadPolicyConfig(
                f"unable to parse EnterpriseContractPolicySpec: {cause.message}"
            ) from cause
        if document is None:
            return cls()
        if not isinstance(document, dict):
            kind = "array" if isinstance(document, list) else type(document).__name__
            raise BadPolicyConfig(
                "unable to parse EnterpriseContractPolicySpec: error unmarshaling JSON: while "
                f"decoding JSON: json: cannot unmarshal {kind} into Go value of type "
                "v1alpha1.EnterpriseContractPolicySpec",
                hint="a policy configuration is a mapping with keys such as sources and publicKey",
            )
        if "spec" not in document:
            return cls.from_spec(document)
        # The Go tool takes a document with a spec but no apiVersion for an
        # empty policy, which nearly every image passes; here its spec counts.
        beside = sorted(document.keys() & _SPEC_KEYS)
        if beside:
            raise BadPolicyConfig(
                f"the policy configuration has a spec and, beside it, {', '.join(beside)}",
                hint="move these keys into spec, or remove the spec level",
            )
        return cls.from_spec(document["spec"])

    @classmethod
    def from_spec(cls, spec: object, *, from_cluster: bool = False) -> PolicyConfig:
        """Make a configuration of a parsed specification.

        Keys nobody knows are refused, except in what comes ``from_cluster``.
        Raises ``BadPolicyConfig``.
        """
        if not isinstance(spec, dict):
            raise BadPolicyConfig("spec is not a valid map structure")
        problem = first_problem(spec, unknown_keys=from_cluster)
        if problem is not None:
            raise BadPolicyConfig(problem)
        configuration, identity = spec.get("configuration"), spec.get("identity")
        return cls(
            spec.get("name", ""),
            spec.get("description", ""),
            tuple(map(SourceGroup.parse, spec.get("sources", ()))),
            None if configuration is None else Patterns.parse(configuration),
            spec.get("rekorUrl", ""),
            spec.get("publicKey", ""),
            None if identity is None else Identity.parse(identity),
        )

    @property
    def urls(self) -> tuple[str, ...]:
        """Every distinct source of every group, in order."""
        return tuple(dict.fromkeys(url for group in self.sources for url in group.urls))

    def pinned(self, pin: Mapping[str, str]) -> PolicyConfig:
        """The same configuration with each source URL replaced by what ``pin`` maps it to."""
        return replace(self, sources=tuple(group.pinned(pin) for group in self.sources))

    def as_dict(self) -> dict[str, Any]:
        """As the report prints it: fields in their fixed order, empty ones left out (2.7)."""
        document = without_empty(
            name=self.name,
            description=self.description,
            sources=[group.as_dict() for group in self.sources],
        )
        if self.configuration is not None:
            document["configuration"] = self.configuration.as_dict()
        document |= without_empty(rekorUrl=self.rekor_url, publicKey=self.public_key)
        if self.identity is not None:
            document["identity"] = self.identity.as_dict()
        return document
