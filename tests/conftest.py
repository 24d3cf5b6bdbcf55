"""Set before any test imports torch: its threads then sleep at a barrier, not spin."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
