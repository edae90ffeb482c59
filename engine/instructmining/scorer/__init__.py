"""Composes the stages: examples in, scored rows out; also for tables in memory."""
