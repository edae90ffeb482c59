"""Runs token ids through models: devices, sessions, batches, and parallel threads."""
