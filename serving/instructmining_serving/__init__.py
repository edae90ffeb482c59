"""The service: scores rows over HTTP, in batches that join the texts of many requests."""
