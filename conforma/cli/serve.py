"""``conforma serve``: the layer cache as a registry that others pull through."""

from __future__ import annotations

import os
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from msgspec import Struct

from conforma.cli.command import Flag, GoCommand, timeout_given
from conforma.cli.gotypes import Duration, GoBool, GoDuration, GoInt, GoList
from conforma.cli.options import CacheChoice, Globals, cache_choice
from conforma.errors import InputError

if TYPE_CHECKING:
    from conforma.cancellation import Cancellation
    from conforma.oci.registry import Registry
    from conforma.serve.metrics import Metrics
    from conforma.serve.pull_through import PullThrough
    from conforma.serve.server import Server

_PASSWORD: Final = "CONFORMA_SERVE_PASSWORD"  # noqa: S105 - the name of a variable


class ServeOptions(Struct, frozen=True):
    """The flags of ``conforma serve``."""

    upstream: tuple[str, ...]
    listen: str
    username: str
    bearer: bool
    tls_cert: str
    tls_key: str
    connections: int
    tag_lifetime: Duration
    grace: Duration
    cache: CacheChoice


@click.command(
    cls=GoCommand,
    name="serve",
    params=[
        Flag(
            ["--upstream"],
            type=GoList(),
            default=(),
            help="Registry to pull through, REGISTRY[/PATH], or a layout: oci:DIRECTORY, "
            "oci-archive:FILE; repeatable. Repositories of the first need no host in their name.",
        ),
        Flag(["--listen"], default="127.0.0.1:5000", help="Address and port; port 0 for any."),
        Flag(
            ["--username"],
            default="",
            help=f"Ask clients for this user and the password in {_PASSWORD}.",
        ),
        Flag(["--bearer"], type=GoBool(), help="Ask for bearer tokens, from a token service here."),
        Flag(["--tls-cert"], default="", help="Certificate chain, to serve https."),
        Flag(["--tls-key"], default="", help="Its private key."),
        Flag(["--connections"], type=GoInt(), default=512, help="Most connections at a time."),
        Flag(
            ["--tag-lifetime"],
            type=GoDuration(),
            default=Duration(60.0),
            help="How long what a tag means is believed.",
        ),
        Flag(
            ["--grace"],
            type=GoDuration(),
            default=Duration(20.0),
            help="How long answers may go on when the server is told to stop.",
        ),
        Flag(["--no-cache"], type=GoBool(), help="Keep nothing on disk (EC_CACHE=false)."),
        Flag(["--cache-dir"], default="", help="Directory of the layer cache (EC_CACHE_DIR)."),
        Flag(
            ["--cache-size"],
            default="",
            help="Limit of the cache, 20GiB unless given (EC_CACHE_SIZE).",
        ),
    ],
    help="Serve images of other registries, read only: each blob is downloaded once, however many "
    "clients want it, kept in the layer cache, and sent on while it arrives. For skopeo, podman, "
    "containerd and conforma itself. /healthz and /metrics are for those who watch it.\n\n"
    "Runs until it is told to stop (SIGINT or SIGTERM), or for as long as --timeout says if that is "
    "given; then it lets running answers end.",
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> int:
    """Serve until told to stop, and return 0."""
    from conforma.cli import logs

    settings = Globals(**ctx.obj)
    logs.start_as(settings)
    cache = cache_choice(
        no_cache=flags.pop("no_cache"),
        cache_dir=flags.pop("cache_dir"),
        cache_size=flags.pop("cache_size"),
    )
    options = ServeOptions(cache=cache, **flags)
    with ExitStack() as stack:
        stop = threading.Event()
        host = start(stack, options, settings, stop, timeout_given(ctx))
        click.echo(f"serving {', '.join(options.upstream)} on {host}")
        stop.wait()
    return 0


def start(
    stack: ExitStack,
    options: ServeOptions,
    settings: Globals,
    stop: threading.Event,
    timeout: Duration | None = None,
) -> str:
    """Serve until ``stack`` closes; returns ``address:port``.

    A signal sets ``stop``, and so does the end of ``timeout``.

    Raises ``InputError`` for flags that contradict each other.
    """
    from conforma.cancellation import Cancellation
    from conforma.cli.signals import run_until_told
    from conforma.cli.wiring import open_layers
    from conforma.serve.landing import Landings
    from conforma.serve.metrics import Metrics
    from conforma.serve.pull_through import PullThrough
    from conforma.serve.upstreams import Upstream, Upstreams

    upstreams = Upstreams([Upstream.parse(text) for text in options.upstream])
    # To stop serving; upstream is cut only after the last answer.
    asked = stack.enter_context(run_until_told(timeout))
    asked.on_cancel(stop.set)
    cancellation = Cancellation()
    registry = stack.enter_context(_upstream_client(options, settings, cancellation))
    layers = open_layers(options.cache, cancellation)
    stack.enter_context(layers)
    stack.callback(cancellation.cancel)
    landings = Landings(layers, cancellation)
    metrics = Metrics(lambda: layers.stats, lambda: registry.stats)
    handler = PullThrough(
        registry,
        landings,
        upstreams,
        access=_access(options),
        metrics=metrics.text,
        fresh=float(options.tag_lifetime),
    )
    server = _listening(options, handler, metrics)
    metrics.gauges["connections"] = ("Open connections.", lambda: server.connections)
    metrics.gauges["following"] = (
        "Answers that read along with a download.",
        lambda: landings.following,
    )
    stack.callback(server.close)
    return server.host


def _upstream_client(
    options: ServeOptions, settings: Globals, cancellation: Cancellation
) -> Registry:
    """What asks the registries behind us; it remembers little, for it runs for long."""
    from msgspec.structs import replace

    from conforma.cli.network import registry_options
    from conforma.oci.options import MEBIBYTE
    from conforma.oci.places import Places

    chosen = registry_options(settings, cache=options.cache)
    return Places(replace(chosen, remembered=16 * MEBIBYTE), cancellation)


def _listening(options: ServeOptions, handler: PullThrough, metrics: Metrics) -> Server:
    """The server, listening. Raises ``InputError`` if it cannot listen there."""
    from conforma.cli.network import listen_address
    from conforma.serve.limits import Limits
    from conforma.serve.server import Server

    address, port = listen_address(options.listen)
    try:
        return Server(
            handler,
            host=address,
            port=port,
            tls=_tls(options),
            limits=Limits(connections=options.connections, grace=float(options.grace)),
            on_served=metrics.served,
        )
    except OSError as cause:
        raise InputError(f"--listen: {options.listen}: {cause.strerror}") from cause


def _access(options: ServeOptions) -> Any:
    from conforma.serve.auth import BasicAuth, BearerAuth

    password = os.environ.get(_PASSWORD, "")
    if options.username and not password:
        raise InputError(f"--username: {_PASSWORD} is not set")
    if options.bearer:
        return BearerAuth(options.username or None, password or None)
    return BasicAuth(options.username, password) if options.username else None


def _tls(options: ServeOptions) -> ssl.SSLContext | None:
    if not options.tls_cert and not options.tls_key:
        return None
    if not options.tls_cert or not options.tls_key:
        raise InputError("--tls-cert and --tls-key belong together")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as cause:
        raise InputError(f"--tls-cert: {Path(options.tls_cert)}: {cause}") from cause
    return context
