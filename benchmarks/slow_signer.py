"""A key behind a service that takes its time, and serves many at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from securesystemslib.signer import Signature, Signer


class SlowSigner(Signer):
    """Signs what another signer signs, after the seconds that ``wait`` gives for it."""

    def __init__(self, signer: Signer, wait: Callable[[bytes], float]) -> None:
        self._signer = signer
        self._wait = wait

    @property
    def public_key(self) -> Any:
        """The key that clients verify with."""
        return self._signer.public_key

    @classmethod
    def from_priv_key_uri(cls, *_: Any) -> SlowSigner:
        """Not offered."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        """Sign, after the time that a service takes for it."""
        time.sleep(self._wait(payload))
        return self._signer.sign(payload)
