"""``compare``: the selection of a rule beside others."""
