"""Builds stand-ins of the libraries that onnxruntime's CUDA provider loads, by what the provider itself asks for.

``runtime.c`` and ``memory.c`` are the CUDA runtime, ``libraries.c`` has the few functions of the others that return a
value. All else is generated: what creates something returns an address, what ends in Name or String a text, and the
rest success. A function that computes writes its name into the log.
"""

from __future__ import annotations

import mmap
import re
import subprocess
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
# Loaded by name while the provider runs; it has the names of its functions as texts.
_CUDNN = "libcudnn.so.9"
_COMPUTES = re.compile(r"emm|geam|cublasLtMatmul$|Transform$|Forward|Inference$|cudnnReduceTensor$|BackendExecute$")


def build(folder: Path) -> None:
    """Build the libraries into a folder, for LD_LIBRARY_PATH.

    Raises:
        CalledProcessError: the provider needs what is not here; the compiler's message says what.
        FileNotFoundError: there is no gcc, or no onnxruntime with CUDA.
        PackageNotFoundError: the package nvidia-cuda-runtime is not installed.
    """
    functions = _functions(_provider())
    runtime = next(library for library in functions if library.startswith("libcudart."))
    for library in sorted(functions, key=lambda name: name != runtime):  # the runtime first: it has the log
        links = [] if library == runtime else [f"-L{folder}", f"-l:{runtime}", "-Wl,-rpath,$ORIGIN"]
        sources = ["runtime.c", "memory.c"] if library == runtime else ["libraries.c"]
        _compile(folder, library, sorted(functions[library]), [*(str(HERE / source) for source in sources), *links])


def _provider() -> Path:
    found = find_spec("onnxruntime")
    if found is None or found.origin is None:
        raise FileNotFoundError("onnxruntime is not installed")
    return Path(found.origin).parent / "capi" / "libonnxruntime_providers_cuda.so"


def _functions(provider: Path) -> dict[str, set[str]]:
    """Return the functions that the provider takes from each library, by the library's file name."""
    needed = re.findall(r"NEEDED.*\[(libcu.*)\]", _output("readelf", "--dynamic", str(provider)))
    functions: dict[str, set[str]] = {library: set() for library in needed}
    driver = next(library for library in needed if library.startswith("libcuda."))
    for symbol in re.findall(r" U (\S+)$", _output("nm", "--dynamic", str(provider)), re.MULTILINE):
        name, _, library = symbol.partition("@")
        if library in functions:
            functions[library].add(name)
        elif re.match("cu[A-Z]", name):  # the driver's symbols have no version
            functions[driver].add(name)
    with provider.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        functions[_CUDNN] = {name.decode() for name in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", content)}
    return functions


def _compile(folder: Path, library: str, names: list[str], arguments: list[str]) -> None:
    defaults = folder / f"{library}.c"
    defaults.write_text('#include "pretended.h"\n' + "".join(map(_default, names)), encoding="utf-8")
    exported = folder / f"{library}.map"
    visible = "".join(f"{name}; " for name in ("pretended_cuda_log", *names))
    exported.write_text(f"{library} {{ global: {visible}local: *; }};\n", encoding="utf-8")
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wl,--no-undefined", f"-Wl,-soname,{library}"]
    options += [f"-Wl,--version-script={exported}", f"-I{HERE}", f"-I{HERE / 'include'}", f"-isystem{_headers()}"]
    _output("gcc", *options, "-o", str(folder / library), str(defaults), *arguments)


def _headers() -> Path:
    files = metadata.files("nvidia-cuda-runtime") or ()
    return Path(next(file for file in files if file.name == "cuda_runtime_api.h").locate()).parent


def _default(name: str) -> str:
    """Return a function in C that a function of the same name in the other sources replaces."""
    weak = "__attribute__((weak))"
    if name.endswith(("Name", "String")):
        return f'{weak} const char *{name}(void) {{ return "pretended"; }}\n'
    if "Create" in name:
        return f"{weak} int {name}(void **made) {{ static char any[4096]; *made = any; return 0; }}\n"
    logged = f'pretended_cuda_log("LIBRARY {name}"); ' if _COMPUTES.search(name) else ""
    return f"{weak} int {name}(void) {{ {logged}return 0; }}\n"


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
