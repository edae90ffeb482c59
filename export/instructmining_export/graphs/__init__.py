"""ONNX graphs written directly from a checkpoint's weights, fused by construction."""
