"""Convert a Hugging Face folder to GGUF, memory-slot metadata included.

    python convert/to_gguf.py DIR -o model.gguf --outtype bf16

One shape: load the folder, check it, map tensors and names (``families/``), write the file whole or not at all. A folder
without ``rim_config.json`` becomes a plain model. The same folder always gives the same bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a file: let the relative imports below find this folder
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    __package__ = "convert"

import gguf
import numpy as np
import numpy.typing as npt

from .families import Family, family_of
from .hf_folder import ConvertError, HfFolder
from .vocabulary import add_vocabulary

OUTPUT_TYPES = {
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
}


def convert(folder: Path, output: Path, outtype: str = "bf16", force: bool = False) -> None:
    """Write the model in ``folder`` as GGUF to ``output``.

    ``outtype`` (``bf16``, ``f16``, ``f32``) is the type of the matrices; vectors (norms, biases) are always F32.
    Raises ConvertError with one line for a folder that cannot be converted or an output that exists without ``force``,
    OSError where the file cannot be written.
    """
    if output.exists() and not force:
        raise ConvertError(f"{output} exists: choose another name or give --force")
    source = HfFolder(folder)
    family = family_of(source.config)
    writer = gguf.GGUFWriter(None, family.architecture)
    writer.add_type("model")
    writer.add_name(source.name)
    if source.license:
        writer.add_license(source.license)
    matrix_type, file_type = OUTPUT_TYPES[outtype]
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    family.add_hyperparameters(writer, source.config)
    add_vocabulary(writer, source, family.vocab_size(source.config))
    spec = source.rim_spec()
    if spec is not None:
        spec.check_model(family.vocab_size(source.config), family.width(source.config))
        spec.to_gguf(writer)
    _add_tensors(writer, source, family, matrix_type)
    _write(writer, output)


def _add_tensors(
    writer: gguf.GGUFWriter, source: HfFolder, family: Family, matrix_type: gguf.GGMLQuantizationType
) -> None:
    n_layers = family.n_layers(source.config)
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = gguf.get_tensor_name_map(architecture, n_layers)
    for name in source.tensor_names():
        if family.is_derived(name, source.config):
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ConvertError(f"{source.path}: no place in GGUF for the tensor {name!r} of this {family.architecture} model")
        data = family.transform(name, source.tensor(name), source.config)
        _add_tensor(writer, target, data, matrix_type if data.ndim > 1 else gguf.GGMLQuantizationType.F32)


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, data: npt.NDArray[np.float32], kind: gguf.GGMLQuantizationType
) -> None:
    """Add float32 ``data`` as F32, F16 or BF16 (rounded to nearest even)."""
    if kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, np.ascontiguousarray(data))
    elif kind == gguf.GGMLQuantizationType.F16:
        writer.add_tensor(name, data.astype(np.float16))
    else:
        writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(data), kind), raw_dtype=kind)


def _write(writer: gguf.GGUFWriter, output: Path) -> None:
    """Write to a temporary file beside ``output``, sync it, and rename it."""
    handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.", suffix=".gguf")
    os.close(handle)
    try:
        writer.write_header_to_file(path=Path(name))
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with open(name, "rb") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, output)
    except BaseException:
        os.unlink(name)
        raise


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="to_gguf.py",
        description="Convert a Hugging Face folder (with or without memory blocks) to GGUF.",
        epilog="example: python convert/to_gguf.py runs/rim-tiny/hf -o rim-tiny.gguf --outtype bf16",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder with config.json, *.safetensors, tokenizer.json")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="GGUF file to write")
    parser.add_argument("--outtype", choices=sorted(OUTPUT_TYPES), default="bf16", help="type of matrices (default bf16)")
    parser.add_argument("--force", action="store_true", help="overwrite the output file")
    options = parser.parse_args(arguments)
    try:
        convert(options.folder, options.output, options.outtype, options.force)
    except (ConvertError, OSError) as error:
        print(f"to_gguf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
