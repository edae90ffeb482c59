"""Works on scored files: selects rows, describes, compares, and predicts with another rule."""
