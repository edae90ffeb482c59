"""Fine-tunes on many subsets, fits a rule to their losses, and tests a selection by it."""
