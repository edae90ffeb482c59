"""Graphs of families that no builder of ours knows: another exporter's, with our outputs put on them."""
