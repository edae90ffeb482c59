"""A dry run of the CUDA path without a GPU: stand-ins of CUDA's libraries, and what onnxruntime does with them."""
