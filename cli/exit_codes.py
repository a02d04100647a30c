"""What the exit code of a command says."""

from __future__ import annotations

DONE = 0
# A file, store, run or image that was named is missing, damaged or in use; or the answer is no (`verify`, `doctor`).
FAILED = 1
# An option, or a name that was given to one (column, task, head, encoder), is wrong; nothing was written.
WRONG_USAGE = 2
# Finished, but more images failed than allowed.
IMAGES_FAILED = 3
# By Ctrl-C, as shells count it: 128 and the number of the signal.
STOPPED = 130
# What `escalate` answers; enough already is `DONE`.
MORE_DATA = 10
ANOTHER_ENCODER = 11
FINE_TUNE = 12
UNLIKELY = 13
