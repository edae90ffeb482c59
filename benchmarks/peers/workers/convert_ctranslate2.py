"""``convert_ctranslate2.py CHECKPOINT OUT QUANTIZATION``: the checkpoint for CTranslate2, by its own converter."""

import sys

from ctranslate2.converters import TransformersConverter

if __name__ == "__main__":
    checkpoint, out, quantization = sys.argv[1:]
    TransformersConverter(checkpoint).convert(out, quantization=quantization, force=True)
