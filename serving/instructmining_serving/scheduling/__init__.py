"""Batches the texts of many requests: who is served next, and how much may wait."""
