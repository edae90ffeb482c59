"""``train`` and ``evaluate``: fine-tunes on each subset and measures the loss."""
