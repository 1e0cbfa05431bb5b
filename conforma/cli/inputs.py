"""What a run is to judge, and by what: snapshot, policy and key, as the command line names them.

All of it is read before the first image is looked at, and everything that is
wrong with it is told together (specification section 8).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from conforma.cli import vsa
from conforma.cli.options import ImageOptions
from conforma.cli.outcome import Collected
from conforma.cli.vsa import Summaries
from conforma.errors import BadPolicyConfig, InputError
from conforma.policy.config import Identity, PolicyConfig
from conforma.policy.effective_time import EffectiveTime
from conforma.policy.kube import Kubernetes
from conforma.policy.locate import load_policy, read_content
from conforma.policy.overrides import Settings, add_rule_data, apply_overrides
from conforma.policy.source import Sources
from conforma.trust.keys import PublicKey
from conforma.validate import snapshot
from conforma.validate.snapshot import Snapshot

log = logging.getLogger(__name__)

LoadKey = Callable[[str], PublicKey]


class Policy(Struct, frozen=True):
    """The policy with everything the command line says about it."""

    settings: Settings
    effective_time: EffectiveTime
    public_key: PublicKey | None

    @property
    def config(self) -> PolicyConfig:
        """The policy itself, with all overrides."""
        return self.settings.config

    @property
    def pem(self) -> str:
        """The key's text, ``""`` without one."""
        return self.public_key.pem if self.public_key is not None else ""


class Inputs(Struct, frozen=True):
    """Everything that was read."""

    snapshot: Snapshot
    policy: Policy
    summaries: Summaries


def read(options: ImageOptions, sources: Sources, cluster: Kubernetes, load_key: LoadKey) -> Inputs:
    """What the options name. Raises one error with everything that is wrong with it."""
    problems = Collected()
    found = Snapshot()
    with problems:
        found = _read_snapshot(options, cluster)
    policy: Policy | None = None
    with problems:
        policy = _read_policy(options, sources, cluster, load_key)
    if policy is not None:
        config, errors = add_rule_data(
            policy.config, options.extra_rule_data, partial(read_content, sources=sources)
        )
        problems.add(errors)
        policy = replace(policy, settings=replace(policy.settings, config=config))
    summaries, vsa_problems = vsa.read(options, cluster, load_key)
    problems.add(vsa_problems)
    problems.raise_any()
    assert policy is not None
    return Inputs(found, policy, summaries)


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
    load_key: LoadKey,
) -> Policy:
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
        return Policy(overridden, moment, None)
    return Policy(overridden, moment, load_key(key))


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
