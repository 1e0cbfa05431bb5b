"""Everything a run needs before the first image is looked at, made once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct, field

from conforma.cache.images import ImageReader
from conforma.cancellation import Cancellation
from conforma.cli import inputs
from conforma.cli.inputs import Policy
from conforma.cli.options import Globals, ImageOptions
from conforma.cli.vsa import Summaries
from conforma.cli.world import World, open_world
from conforma.errors import BadReference
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.policy import workspace
from conforma.policy.config import Identity
from conforma.policy.evaluation import SourceGroupEvaluator
from conforma.policy.rego.builtins import builtins_for
from conforma.policy.rego.engine import Engine
from conforma.policy.selection import FilterType
from conforma.policy.source import Sources
from conforma.report.formats import DETAILED
from conforma.trust.root_sources import RootSources
from conforma.trust.signature import Attestation, Signature
from conforma.trust.trust_policy import TrustPolicy
from conforma.trust.verify import Verifier
from conforma.validate import policy_input
from conforma.validate.component import Checks, Tools
from conforma.validate.facts import read_facts
from conforma.validate.result import Effort
from conforma.validate.snapshot import Component, Snapshot

if TYPE_CHECKING:
    from conforma.cache.direct import DirectLayers
    from conforma.cache.origins import Origins
    from conforma.cache.safe_cache import SafeCache
    from conforma.trust import identity as trust_identity


class Preparation(Struct, frozen=True):
    """What a run works with. ``policy`` and ``key`` are as the report shows them."""

    snapshot: Snapshot
    checks: Checks
    registry: Registry
    layers: SafeCache | DirectLayers
    images: ImageReader
    verifier: Verifier
    evaluators: tuple[SourceGroupEvaluator, ...]
    builtins: Mapping[str, Any]
    cancellation: Cancellation
    policy: Mapping[str, Any]
    key: str
    summaries: Summaries = field(default_factory=Summaries)
    origins: Origins | None = None

    def effort(self) -> Effort:
        """What the run has cost and saved so far."""
        found = () if self.origins is None else self.origins.listed(self.layers.verified_at)
        return Effort(self.layers.stats, self.registry.stats, found)

    def tools(self, expanded: Snapshot) -> Tools:
        """What components of the expanded snapshot are validated with."""

        encoded = policy_input.encoded(expanded)
        listed = frozenset(component.container_image for component in expanded.components)

        def make_input(
            component: Component,
            image: Reference,
            signatures: tuple[Signature, ...],
            attestations: tuple[Attestation, ...],
        ) -> policy_input.PolicyInput:
            return policy_input.build(
                component,
                image,
                facts=read_facts(image, self.images, listed),
                signatures=signatures,
                attestations=attestations,
                snapshot=encoded,
                policy_spec=self.policy,
            )

        return Tools(
            registry=self.registry,
            verifier=self.verifier,
            evaluators=self.evaluators,
            builtins=self.builtins,
            make_input=make_input,
            cancellation=self.cancellation,
        )


def prepare(
    stack: ExitStack,
    engine: Engine | None,
    options: ImageOptions,
    settings: Globals,
    cancellation: Cancellation,
    *,
    trace_rules: bool,
    formats: frozenset[str],
) -> Preparation:
    """Make what the run needs; ``stack`` closes it. Without a policy there is no ``engine``.

    Raises one error with everything that is wrong with the input.
    """
    origins: Origins | None = None
    if "provenance" in formats:
        from conforma.cache.origins import Origins

        origins = Origins()
    world = open_world(stack, options, settings, cancellation, origins)
    found = inputs.read(options, world.sources, world.cluster, world.load_key)
    policy = found.policy
    world.sources.fetch_all(policy.config.urls)
    evaluators, pins = compiled(options, engine, world.sources, policy, trace_rules=trace_rules)
    layers = world.open_cache()
    world.registry.expect(_expected(found.snapshot))
    images = ImageReader(world.registry, layers)
    verifier = make_verifier(options, world, policy)
    return Preparation(
        snapshot=found.snapshot,
        checks=_checks(options, policy, formats),
        registry=world.registry,
        layers=layers,
        images=images,
        verifier=verifier,
        evaluators=evaluators,
        builtins=builtins_for(world.registry, images, verifier, world.load_key, cancellation),
        cancellation=cancellation,
        policy=policy.config.pinned(pins).as_dict(),
        key=policy.pem,
        summaries=found.summaries,
        origins=origins,
    )


def compiled(
    options: ImageOptions,
    engine: Engine | None,
    sources: Sources,
    policy: Policy,
    *,
    trace_rules: bool,
) -> tuple[tuple[SourceGroupEvaluator, ...], dict[str, str]]:
    """The rules of each source group, being compiled, and the pinned form of each source."""
    config = policy.config
    workspaces = tuple(workspace.prepare(group, sources) for group in config.sources)
    pins = {url: pinned for place in workspaces for url, pinned in place.pins.items()}
    if not workspaces:
        return (), pins
    assert engine is not None, "only a policy names sources"
    evaluators = tuple(
        SourceGroupEvaluator(
            engine,
            group,
            policy_dirs=place.policy_dirs,
            data_dirs=place.data_dirs,
            origins=place.origins,
            configuration=config.configuration,
            sigstore_options=_sigstore_options(options, policy),
            started=policy.effective_time.moment,
            mode=cast(FilterType, options.filter_type),
            trace=trace_rules,
        )
        for group, place in zip(config.sources, workspaces, strict=True)
    )
    return evaluators, pins


def make_verifier(options: ImageOptions, world: World, policy: Policy) -> Verifier:
    """Who verifies what the policy trusts."""
    trust = TrustPolicy(
        public_key=policy.public_key,
        identity=None if policy.public_key else _trusted(policy.settings.identity),
        ignore_rekor=options.ignore_rekor,
        rekor_url=policy.config.rekor_url,
    )
    roots = RootSources(os.environ, offline=options.offline)
    return Verifier(world.registry, trust, roots, ask_log=world.log_client)


def _checks(options: ImageOptions, policy: Policy, formats: frozenset[str]) -> Checks:
    return Checks(
        effective_time=policy.effective_time,
        skip_image_signature=options.skip_image_sig_check,
        skip_attestation_signature=options.skip_att_sig_check,
        keyed=policy.public_key is not None,
        info=options.info or not DETAILED.isdisjoint(formats),
        keep_statements="attestation" in formats,
        keep_policy_input="policy-input" in formats,
    )


def _expected(found: Snapshot) -> Iterator[Reference]:
    """The images of the snapshot; what is no reference is told with its component."""
    for component in found.components:
        with suppress(BadReference):
            yield Reference.parse(component.container_image)


def _sigstore_options(options: ImageOptions, policy: Policy) -> dict[str, Any]:
    """``data.config.default_sigstore_opts`` (4.3)."""
    identity = policy.settings.identity or Identity()
    return {
        "certificate_identity": identity.subject,
        "certificate_identity_regexp": identity.subject_regexp,
        "certificate_oidc_issuer": identity.issuer,
        "certificate_oidc_issuer_regexp": identity.issuer_regexp,
        "ignore_rekor": options.ignore_rekor,
        "public_key": policy.pem,
        "rekor_url": policy.config.rekor_url,
    }


def _trusted(identity: Identity | None) -> trust_identity.Identity | None:
    if identity is None:
        return None
    from conforma.trust import identity as trust_identity

    return trust_identity.Identity(
        issuer=identity.issuer,
        subject=identity.subject,
        issuer_regexp=identity.issuer_regexp,
        subject_regexp=identity.subject_regexp,
    )
