"""Whether the disk under an embedded store has room left."""

from __future__ import annotations

import os
from pathlib import Path


def is_full(place: Path) -> bool:
    """Whether the disk of a file or folder has nothing left to give to this program. Raises OSError."""
    disk = os.statvfs(place)
    # One without blocks, as some on a network, does not tell.
    return disk.f_blocks > 0 and disk.f_bavail == 0
