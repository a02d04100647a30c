"""One file per command: parse, call one job, print."""
