"""OpenDataArena: its score files, and the trials of its R-Select."""
