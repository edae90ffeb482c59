"""Sentence vectors by sentence-transformers, from texts, on PyTorch or on its ONNX backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from protocol import Setting, Task, pairs_of, serve
from sentence_transformers import SentenceTransformer, export_optimized_onnx_model

BATCH_ROWS = (1, 2, 4, 8, 32)  # 32 is its default
ONNX_FILES = ("onnx/model.onnx", "onnx/model_O3.onnx")


def documents_of(path: str) -> list[str]:
    """The text that is embedded of each row."""
    return [f"{prompt}\n{response}" for prompt, response in pairs_of(path)]


class TorchEmbedding(Task):
    """The default backend; it sorts by length itself."""

    settings = tuple({"batch_rows": rows} for rows in BATCH_ROWS)

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        torch.set_num_threads(material["threads"])
        self.documents = documents_of(material["rows"])
        self.model = SentenceTransformer(material["encoder"], device="cpu")

    def run(self, setting: Setting) -> NDArray[Any]:
        return self.model.encode(self.documents, batch_size=setting["batch_rows"], show_progress_bar=False)

    def values(self, result: NDArray[Any]) -> list[list[float]]:
        return result.tolist()


class OnnxEmbedding(TorchEmbedding):
    """The stock graph and the one that its own optimizer writes at O3, the highest that keeps float32 exact."""

    settings = tuple({"file": file, "batch_rows": rows} for file in ONNX_FILES for rows in BATCH_ROWS)

    def __init__(self, material: dict[str, Any]) -> None:
        Task.__init__(self)
        torch.set_num_threads(material["threads"])
        self.documents = documents_of(material["rows"])
        self.folder = Path(material["onnx_encoder"])
        if not (self.folder / ONNX_FILES[1]).is_file():
            model = SentenceTransformer(material["encoder"], device="cpu", backend="onnx")
            model.save_pretrained(str(self.folder))
            export_optimized_onnx_model(model, "O3", str(self.folder))
        self.opened = ""

    def run(self, setting: Setting) -> NDArray[Any]:
        if setting["file"] != self.opened:
            self.model = SentenceTransformer(
                str(self.folder),
                device="cpu",
                backend="onnx",
                model_kwargs={"file_name": setting["file"], "provider": "CPUExecutionProvider"},
            )
            self.opened = setting["file"]
        return super().run(setting)


if __name__ == "__main__":
    serve(
        {"torch": TorchEmbedding, "onnx": OnnxEmbedding},
        ("sentence-transformers", "optimum-onnx", "onnxruntime", "torch"),
    )
