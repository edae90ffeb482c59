"""Checkpoints to bundles of ONNX graphs; needs the extra ``[export]``."""
