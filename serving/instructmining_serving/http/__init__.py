"""The service over HTTP: routes, limits, tokens, metrics."""
