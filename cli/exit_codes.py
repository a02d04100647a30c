"""What the exit code of a command says."""

from __future__ import annotations

DONE = 0
FAILED = 1
WRONG_USAGE = 2
# Finished, but more images failed than allowed.
IMAGES_FAILED = 3
# By Ctrl-C, as shells count it: 128 and the number of the signal.
STOPPED = 130
