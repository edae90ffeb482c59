"""Triton: a model repository of a bundle, and the front that runs in its Python backend."""
