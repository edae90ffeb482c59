"""Computes the figures of a report from sets that were read; no texts, no drawing."""
