"""The flags of the root command that are about registries, without what they need to work."""

from __future__ import annotations

from conforma.cli.command import Flag
from conforma.cli.gotypes import GoList


def network_flags() -> list[Flag]:
    """Declare them; every command accepts them."""
    return [
        Flag(
            ["--insecure-registry"],
            type=GoList(),
            default=(),
            help="HOST[:PORT] to speak to without TLS; repeatable. Loopback is always.",
        ),
        Flag(
            ["--registry-mirror"],
            type=GoList(),
            default=(),
            help="REGISTRY=HOST[/PREFIX][?final]: read from there first; what a final mirror "
            "does not have does not exist. Repeatable.",
        ),
        Flag(
            ["--registry-rate"],
            type=GoList(),
            default=(),
            help="REGISTRY=PER_MINUTE[/BURST]: most requests, counted over all processes of "
            "this machine; * is every other registry, and 0 no limit. Repeatable. docker.io has "
            "300/300 unless told otherwise, the others none.",
        ),
    ]
