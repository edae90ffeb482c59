"""Distances to nearest neighbours where float32 does not suffice, or where sets are many and small."""
