"""The run folder, and everything that is read from one."""
