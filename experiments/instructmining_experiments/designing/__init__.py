"""``design``: scores a pool, holds rows out, and draws the subsets."""
