"""Reads what a report is about: scored files, once each, and the records beside them."""
