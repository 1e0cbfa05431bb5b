"""What is outside of a run: registries, the cache, sources, a log and a cluster, opened together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from typing import TYPE_CHECKING

from msgspec import Struct

from conforma.cancellation import Cancellation
from conforma.cli.inputs import LoadKey
from conforma.cli.network import tell_totals
from conforma.cli.options import Globals, ImageOptions
from conforma.cli.wiring import open_layers, open_log, open_registry, retry_policy
from conforma.errors import InputError
from conforma.oci.registry import Registry
from conforma.policy.kube import Kubernetes
from conforma.policy.source import Sources
from conforma.trust.keys import PublicKey
from conforma.trust.rekor_client import RekorClient

if TYPE_CHECKING:
    from conforma.cache.direct import DirectLayers
    from conforma.cache.origins import Origins
    from conforma.cache.safe_cache import SafeCache


class World(Struct, frozen=True):
    """What is outside: opened with the run, asked when somebody needs it."""

    registry: Registry
    open_cache: Callable[[], SafeCache | DirectLayers]
    sources: Sources
    log_client: RekorClient
    cluster: Kubernetes

    @property
    def load_key(self) -> LoadKey:
        """Reads a public key from wherever a text says it is."""
        fetch = partial(_download, self.sources)
        return partial(PublicKey.load, fetch=fetch, secrets=self.cluster.secret_field)


def open_world(
    stack: ExitStack,
    options: ImageOptions,
    settings: Globals,
    cancellation: Cancellation,
    origins: Origins | None,
) -> World:
    """Open what the options name; ``stack`` closes it."""

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
    return World(registry, layers, sources, log_client, cluster)


def _download(sources: Sources, url: str) -> bytes:
    """The one file that an https URL names. Raises ``InputError`` for an archive of several."""
    fetched = sources.fetch(url)
    files = [path for path in fetched.path.iterdir() if path.is_file()]
    if len(files) != 1:
        raise InputError(f"{fetched.pinned}: expected one file, found {len(files)}")
    return files[0].read_bytes()
