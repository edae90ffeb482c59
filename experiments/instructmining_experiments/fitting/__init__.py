"""``fit``: a rule from three quarters of the runs, tested on the last."""
