"""Everything a run needs before the first image is looked at, made once.

Problems of the snapshot, the policy and the flags are collected and told
together (specification section 8).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from conforma.cache.images import ImageReader
from conforma.cache.origins import Origins
from conforma.cancellation import Cancellation
from conforma.cli import vsa
from conforma.cli.network import tell_totals
from conforma.cli.options import Globals, ImageOptions
from conforma.cli.outcome import Collected
from conforma.cli.vsa import Summaries
from conforma.cli.wiring import open_layers, open_log, open_registry, retry_policy
from conforma.errors import BadPolicyConfig, BadReference, InputError
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.policy import workspace
from conforma.policy.config import Identity, PolicyConfig
from conforma.policy.effective_time import EffectiveTime
from conforma.policy.evaluation import SourceGroupEvaluator
from conforma.policy.kube import Kubernetes
from conforma.policy.locate import load_policy, read_content
from conforma.policy.overrides import Settings, add_rule_data, apply_overrides
from conforma.policy.rego.builtins import builtins_for
from conforma.policy.rego.engine import Engine
from conforma.policy.selection import FilterType
from conforma.policy.source import Sources
from conforma.report.formats import DETAILED
from conforma.trust import identity as trust_identity
from conforma.trust.keys import PublicKey
from conforma.trust.rekor_client import RekorClient
from conforma.trust.root_sources import RootSources
from conforma.trust.signature import Attestation, Signature
from conforma.trust.trust_policy import TrustPolicy
from conforma.trust.verify import Verifier
from conforma.validate import policy_input, snapshot
from conforma.validate.component import Checks, Tools
from conforma.validate.facts import read_facts
from conforma.validate.result import Effort
from conforma.validate.snapshot import Component, Snapshot

if TYPE_CHECKING:
    from conforma.cache.direct import DirectLayers
    from conforma.cache.safe_cache import SafeCache

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Preparation:
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


@dataclass(frozen=True, slots=True)
class _Policy:
    """The policy with everything the command line says about it."""

    settings: Settings
    effective_time: EffectiveTime
    public_key: PublicKey | None


def prepare(
    stack: ExitStack,
    options: ImageOptions,
    settings: Globals,
    cancellation: Cancellation,
    *,
    trace_rules: bool,
    formats: frozenset[str],
) -> Preparation:
    """Make what the run needs; ``stack`` closes it.

    Raises one error with everything that is wrong with the input.
    """
    # The engine comes up while we import the HTTP client and fetch the policy.
    engine = stack.enter_context(Engine.start(cancellation)) if options.policy else None

    origins = Origins() if "provenance" in formats else None

    @cache
    def layers() -> SafeCache | DirectLayers:
        opened = open_layers(options.cache, cancellation, origins)
        stack.enter_context(opened)
        return opened

    registry = stack.enter_context(
        open_registry(
            settings,
            cancellation,
            mirrors=options.mirror_from,
            offline=options.offline,
            cache=options.cache,
            content=lambda: layers().content(),
            origins=origins,
        )
    )
    stack.callback(tell_totals, registry)
    sources = stack.enter_context(
        Sources(
            lambda: registry,
            cancellation,
            retry=retry_policy(settings),
            use_mirrors=bool(options.mirror_from),
            offline=options.offline,
        )
    )
    log_client = stack.enter_context(open_log(settings, cancellation, offline=options.offline))
    cluster = Kubernetes(settings.kubeconfig, offline=options.offline)
    load_key = partial(
        PublicKey.load, fetch=partial(_download, sources), secrets=cluster.secret_field
    )
    problems = Collected()
    found = Snapshot()
    with problems:
        found = _read_snapshot(options, cluster)
    policy: _Policy | None = None
    with problems:
        policy = _read_policy(options, sources, cluster, load_key)
    if policy is not None:
        config, errors = add_rule_data(
            policy.settings.config, options.extra_rule_data, partial(read_content, sources=sources)
        )
        problems.add(errors)
        policy = replace(policy, settings=replace(policy.settings, config=config))
    summaries, vsa_problems = vsa.read(options, cluster, load_key)
    problems.add(vsa_problems)
    problems.raise_any()
    assert policy is not None
    assembled = _assemble(
        options,
        cancellation,
        engine,
        registry,
        layers,
        sources,
        found,
        policy,
        load_key,
        log_client,
        trace_rules=trace_rules,
        formats=formats,
    )
    return replace(assembled, summaries=summaries, origins=origins)


def _read_snapshot(options: ImageOptions, cluster: Kubernetes) -> Snapshot:
    """All inputs merged, in their fixed order; the first that fails ends the reading (1.3)."""
    parts: list[Snapshot] = []
    if options.images:
        parts.append(snapshot.from_path_or_text(options.images))
    if options.file_path:
        parts.append(snapshot.from_file(options.file_path))
    if options.json_input:
        parts.append(snapshot.parse(options.json_input))
    if options.image:
        parts.append(snapshot.from_image(options.image))
    if options.snapshot:
        parts.append(snapshot.from_cluster(options.snapshot, cluster.snapshot))
    if not parts:
        raise InputError("neither Snapshot nor image reference provided to validate")
    return snapshot.check(snapshot.merge(parts))


def _read_policy(
    options: ImageOptions,
    sources: Sources,
    cluster: Kubernetes,
    load_key: Callable[[str], PublicKey],
) -> _Policy:
    """The policy after all overrides, with its moment and key (2.4); the first error wins."""
    config = load_policy(options.policy or "", sources, cluster)
    overridden = apply_overrides(
        config,
        rekor_url=options.rekor_url,
        public_key=options.public_key,
        identity=Identity(
            options.certificate_identity,
            options.certificate_identity_regexp,
            options.certificate_oidc_issuer,
            options.certificate_oidc_issuer_regexp,
        ),
    )
    moment = EffectiveTime.parse(
        options.effective_time, allow_past=options.allow_past_effective_time
    )
    _check_sources(options, config)
    key = overridden.config.public_key
    if not key:
        return _Policy(overridden, moment, None)
    return _Policy(overridden, moment, load_key(key))


def _check_sources(options: ImageOptions, config: PolicyConfig) -> None:
    """Refuse a policy in which there is nothing to judge by; having none at all is a choice."""
    if config.sources:
        return
    if options.policy is not None:
        raise BadPolicyConfig(
            "the policy has no sources, so no rule would judge any image",
            hint="leave --policy out to check only signatures and attestations",
        )
    log.warning("no policy was given: only signatures and attestations are checked")


def _assemble(
    options: ImageOptions,
    cancellation: Cancellation,
    engine: Engine | None,
    registry: Registry,
    open_cache: Callable[[], SafeCache | DirectLayers],
    sources: Sources,
    found: Snapshot,
    policy: _Policy,
    load_key: Callable[[str], PublicKey],
    log_client: RekorClient,
    *,
    trace_rules: bool,
    formats: frozenset[str],
) -> Preparation:
    config = policy.settings.config
    sources.fetch_all(config.urls)
    workspaces = tuple(workspace.prepare(group, sources) for group in config.sources)
    evaluators: tuple[SourceGroupEvaluator, ...] = ()
    if workspaces:
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
    pins = {url: pinned for place in workspaces for url, pinned in place.pins.items()}
    layers = open_cache()
    registry.expect(_expected(found))
    images = ImageReader(registry, layers)
    trust = TrustPolicy(
        public_key=policy.public_key,
        identity=None if policy.public_key else _trusted(policy.settings.identity),
        ignore_rekor=options.ignore_rekor,
        rekor_url=config.rekor_url,
    )
    roots = RootSources(os.environ, offline=options.offline)
    verifier = Verifier(registry, trust, roots, ask_log=log_client)
    return Preparation(
        snapshot=found,
        checks=Checks(
            effective_time=policy.effective_time,
            skip_image_signature=options.skip_image_sig_check,
            skip_attestation_signature=options.skip_att_sig_check,
            keyed=policy.public_key is not None,
            info=options.info or not DETAILED.isdisjoint(formats),
            keep_statements="attestation" in formats,
            keep_policy_input="policy-input" in formats,
        ),
        registry=registry,
        layers=layers,
        images=images,
        verifier=verifier,
        evaluators=evaluators,
        builtins=builtins_for(registry, images, verifier, load_key, cancellation),
        cancellation=cancellation,
        policy=config.pinned(pins).as_dict(),
        key=policy.public_key.pem if policy.public_key is not None else "",
    )


def _expected(found: Snapshot) -> Iterator[Reference]:
    """The images of the snapshot; what is no reference is told with its component."""
    for component in found.components:
        with suppress(BadReference):
            yield Reference.parse(component.container_image)


def _sigstore_options(options: ImageOptions, policy: _Policy) -> dict[str, Any]:
    """``data.config.default_sigstore_opts`` (4.3)."""
    identity = policy.settings.identity or Identity()
    return {
        "certificate_identity": identity.subject,
        "certificate_identity_regexp": identity.subject_regexp,
        "certificate_oidc_issuer": identity.issuer,
        "certificate_oidc_issuer_regexp": identity.issuer_regexp,
        "ignore_rekor": options.ignore_rekor,
        "public_key": policy.public_key.pem if policy.public_key is not None else "",
        "rekor_url": policy.settings.config.rekor_url,
    }


def _trusted(identity: Identity | None) -> trust_identity.Identity | None:
    if identity is None:
        return None
    return trust_identity.Identity(
        issuer=identity.issuer,
        subject=identity.subject,
        issuer_regexp=identity.issuer_regexp,
        subject_regexp=identity.subject_regexp,
    )


def _download(sources: Sources, url: str) -> bytes:
    """The one file that an https URL names. Raises ``InputError`` for an archive of several."""
    fetched = sources.fetch(url)
    files = [path for path in fetched.path.iterdir() if path.is_file()]
    if len(files) != 1:
        raise InputError(f"{fetched.pinned}: expected one file, found {len(files)}")
    return files[0].read_bytes()
