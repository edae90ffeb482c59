"""Scores an input in parts, on any machines in any order, and merges what they wrote."""
