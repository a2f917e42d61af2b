"""``python tether.py PARENT COMMAND…``: becomes the command, which is told to stop (SIGTERM) when its parent dies.

The supervisor stops its programs, except when it is killed by force: what it leaves behind then would keep the ports.
Started as a file and importing next to nothing, for it stands before every program.
"""

import ctypes
import os
import signal
import sys

# From linux/prctl.h; kept across an exec, prctl(2).
_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become the command, or end at once if the parent is gone already. Elsewhere than on Linux only the former."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(0)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
