"""Distances to nearest neighbours: exact, approximate, and within pools."""
