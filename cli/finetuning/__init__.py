"""``embed finetune``: an encoder that learns a task, when a head alone is not enough."""
