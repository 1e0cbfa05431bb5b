"""E13: renewing every role of a large ledger, by as many signatures at a time as there are workers.

Signing costs ``sign`` ms, as a signing service does. The baseline is one
worker, which is how a task per role with one lock does it. Arguments:
``roles=512 workers=8 sign=10``; the experiment is about 2,048 roles.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from benchmarks.measure import numbers, table
from benchmarks.slow_signer import SlowSigner
from conforma.ledger import keys
from conforma.ledger.config import Config
from conforma.ledger.initialize import initialize
from conforma.ledger.ledger import Ledger
from conforma.ledger.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Options:
    """See the module."""

    roles: int = 512
    workers: int = 8
    sign: int = 10

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        """From ``name=number`` words."""
        return cls(**numbers(arguments))


def renew(options: Options, workers: int) -> float:
    """Seconds until one commit that renews everything is acknowledged."""
    with tempfile.TemporaryDirectory(prefix="conforma-renewal-") as name:
        directory, key_directory = Path(name, "ledger"), Path(name, "keys")
        initialize(directory, key_directory, Config().with_bins(options.roles))
        with Ledger(directory, parallel=workers) as ledger:
            online = keys.online(str(key_directory / "online.pem"), ledger.state.root)
            assert isinstance(online, CryptoSigner)
            publisher = Publisher(ledger, SlowSigner(online, lambda _: options.sign / 1000))
            started = time.perf_counter()
            publisher.bump(everything=True).result()
            seconds = time.perf_counter() - started
            publisher.close()
            assert ledger.state.head.version == 2
    return seconds


def main(arguments: list[str]) -> None:
    """Print the table."""
    options = Options.parse(arguments)
    one, many = renew(options, 1), renew(options, options.workers)
    least = options.roles * options.sign / 1000
    table(
        f"{options.roles} roles renewed in one commit, {options.sign} ms a signature",
        [
            ("E13 1 worker", f"{one:.2f} s", f"signing alone {least:.2f} s"),
            (
                f"E13 {options.workers} workers",
                f"{many:.2f} s",
                f"signing alone {least / options.workers:.2f} s",
            ),
            (
                f"E13 1 : {options.workers} workers",
                f"{one / many:.1f}",
                f"<= {options.workers}, linear until processor or disk are busy",
            ),
        ],
    )
