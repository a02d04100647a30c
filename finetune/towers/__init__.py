"""The tower as something to train: its blocks, adapters, the classification head, and the folder it becomes."""
