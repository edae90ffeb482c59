"""Draws figures as SVG in the colours of the page."""
