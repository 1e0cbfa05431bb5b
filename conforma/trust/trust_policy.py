"""What a policy demands of signatures: by whom, and seen by a log or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from conforma.trust.identity import Identity
    from conforma.trust.keys import PublicKey


class TrustPolicy(Struct, frozen=True):
    """Who must have signed, and whether a transparency log must have seen it.

    With a key the identity is ignored; without one it is required.
    """

    public_key: PublicKey | None = None
    identity: Identity | None = None
    ignore_rekor: bool = False
    rekor_url: str = ""

    def check_usable(self) -> None:
        """Raise ``InputError`` unless the policy names somebody."""
        if self.public_key is None:
            from conforma.trust.identity import Identity

            (self.identity or Identity()).check_usable()

    @property
    def asks_the_clock(self) -> bool:
        """Whether a verdict depends on when it is made: nothing signed need say when."""
        return self.public_key is None and self.ignore_rekor

    @property
    def needs_root(self) -> bool:
        """Whether verification looks at logs or certificate authorities."""
        return self.public_key is None or not self.ignore_rekor
