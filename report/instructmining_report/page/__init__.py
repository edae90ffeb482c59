"""Puts figures, plots and words together as one page."""
