"""``python -m common.worker``: one worker in the foreground."""

from __future__ import annotations

import sys

from common.worker.process import main

sys.exit(main())
