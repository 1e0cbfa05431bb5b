"""Opening NaCl secret boxes (XSalsa20 and Poly1305), which cosign seals private keys in.

Sources: "Extending the Salsa20 nonce" (Bernstein, 2011) and RFC 8439 for
Poly1305. A key file is a few hundred bytes, so this need not be fast; and it
handles one secret once, on the machine of whoever owns it.
"""

from __future__ import annotations

import struct
from typing import Final

_SIGMA: Final = struct.unpack("<4I", b"expand 32-byte k")
_MASK: Final = 0xFFFFFFFF
_TAG: Final = 16
_ROUNDS: Final = 10
_QUARTERS: Final = (
    (0, 4, 8, 12),
    (5, 9, 13, 1),
    (10, 14, 2, 6),
    (15, 3, 7, 11),
    (0, 1, 2, 3),
    (5, 6, 7, 4),
    (10, 11, 8, 9),
    (15, 12, 13, 14),
)


def open_box(key: bytes, nonce: bytes, box: bytes) -> bytes:
    """What was sealed with a key of 32 and a nonce of 24 bytes.

    Raises ``ValueError`` if it was sealed with another key or changed since.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    if len(key) != 32 or len(nonce) != 24 or len(box) < _TAG:
        raise ValueError("not a secret box")
    subkey = _hsalsa20(key, nonce[:16])
    sealed = box[_TAG:]
    stream = _stream(subkey, nonce[16:], 32 + len(sealed))
    try:
        Poly1305.verify_tag(stream[:32], sealed, box[:_TAG])
    except InvalidSignature as cause:
        raise ValueError("the secret box does not open") from cause
    return bytes(a ^ b for a, b in zip(sealed, stream[32:], strict=True))


def _stream(key: bytes, nonce: bytes, length: int) -> bytes:
    blocks = -(-length // 64)
    return b"".join(_salsa20(key, nonce, number) for number in range(blocks))[:length]


def _salsa20(key: bytes, nonce: bytes, block: int) -> bytes:
    state = _state(key, nonce + struct.pack("<Q", block))
    mixed = _mixed(state)
    return struct.pack("<16I", *((a + b) & _MASK for a, b in zip(mixed, state, strict=True)))


def _hsalsa20(key: bytes, nonce: bytes) -> bytes:
    mixed = _mixed(_state(key, nonce))
    return struct.pack("<8I", *(mixed[place] for place in (0, 5, 10, 15, 6, 7, 8, 9)))


def _state(key: bytes, position: bytes) -> list[int]:
    k = struct.unpack("<8I", key)
    n = struct.unpack("<4I", position)
    return [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]


def _mixed(state: list[int]) -> list[int]:
    x = list(state)
    for _ in range(_ROUNDS):
        for a, b, c, d in _QUARTERS:
            x[b] ^= _rotated(x[a] + x[d], 7)
            x[c] ^= _rotated(x[b] + x[a], 9)
            x[d] ^= _rotated(x[c] + x[b], 13)
            x[a] ^= _rotated(x[d] + x[c], 18)
    return x


def _rotated(value: int, by: int) -> int:
    value &= _MASK
    return (value << by | value >> (32 - by)) & _MASK
