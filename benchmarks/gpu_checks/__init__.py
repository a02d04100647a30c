"""The sections of `benchmarks/on_gpu.py`: each measures one thing, and writes a row as soon as it has one."""
