"""Seeds from names: whatever is random is drawn from what it is for, and from nothing else."""

import hashlib


def seed_of(*parts: object) -> int:
    """A seed of 63 bits from any parts with a stable `repr`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
