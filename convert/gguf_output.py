"""Writing a checkpoint as GGUF: metadata first, then tensor after tensor, a few megabytes at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Kind

from .checkpoint import Checkpoint
from .failure import ConvertError
from .lazy_tensor import FloatArray, LazyTensor
from .vocabulary import add_vocabulary
from .whole_file import check_output, whole_file

OUTPUT_TYPES = {
    "bf16": (Kind.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "f16": (Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "f32": (Kind.F32, gguf.LlamaFileType.ALL_F32),
    "q8_0": (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_ALWAYS_F32 = {"position_embd.weight"}  # added to the embeddings row by row, small

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Output:
    """One tensor of the file: its GGUF name, where its values come from, and its type there."""

    name: str
    source: LazyTensor
    kind: Kind

    @property
    def size_bytes(self) -> int:
        block, block_bytes = gguf.GGML_QUANT_SIZES[self.kind]
        return prod(self.source.shape) // block * block_bytes


def write_gguf(
    checkpoint: Checkpoint, output: Path, outtype: str = "bf16", force: bool = False, progress: Progress | None = None
) -> list[str]:
    """Write ``checkpoint`` to ``output``; returns what a user should be told.

    ``outtype`` (a key of ``OUTPUT_TYPES``) is the type of the matrices; vectors (norms, biases) and learnt positions
    are F32. ``progress`` gets bytes done and bytes in all. The same checkpoint always gives the same bytes. Raises
    ConvertError for a checkpoint or a place that will not do, OSError where the file cannot be written.
    """
    check_output(output, force)
    family, config = checkpoint.family, checkpoint.config
    matrix, file_type = OUTPUT_TYPES[outtype]
    writer = gguf.GGUFWriter(None, family.architecture)
    writer.add_type("model")
    writer.add_name(checkpoint.name)
    if checkpoint.license:
        writer.add_license(checkpoint.license)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    family.add_hyperparameters(writer, config, checkpoint.n_vocab)
    notices = [*checkpoint.notices, *add_vocabulary(writer, checkpoint)]
    if checkpoint.spec is not None:
        checkpoint.spec.check_model(checkpoint.n_vocab, family.width(config))
        checkpoint.spec.to_gguf(writer)
    outputs = _plan(checkpoint, matrix)
    if matrix == Kind.Q8_0 and (odd := [o.name for o in outputs if o.kind == Kind.F16]):
        notices.append(f"{len(odd)} matrices have rows that are no multiple of 32 and stay F16 ({odd[0]}, ...)")
    _write(writer, outputs, output, force, progress)
    return notices


def _plan(checkpoint: Checkpoint, matrix: Kind) -> list[_Output]:
    """Every tensor of the file, in the order of the checkpoint's names."""
    family, config = checkpoint.family, checkpoint.config
    architecture = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = gguf.get_tensor_name_map(architecture, family.n_layers(config))
    planned = []
    for name in sorted(checkpoint.tensors):
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ConvertError(
                f"{checkpoint.folder}: no place in GGUF for the tensor {name!r} of this {family.architecture} model"
            )
        canonical = LazyTensor(name, checkpoint.tensors[name].shape, checkpoint.tensors[name].read)
        planned.append((target, family.transform(canonical, config)))
    planned += [(tensor.name, tensor) for tensor in family.extra_tensors(config)]
    return [_Output(target, tensor, _kind(target, tensor.shape, matrix)) for target, tensor in planned]


def _kind(target: str, shape: tuple[int, ...], matrix: Kind) -> Kind:
    if len(shape) < 2 or target in _ALWAYS_F32:
        return Kind.F32
    if matrix == Kind.Q8_0 and shape[-1] % gguf.GGML_QUANT_SIZES[matrix][0]:
        return Kind.F16
    return matrix


def _write(writer: gguf.GGUFWriter, outputs: list[_Output], path: Path, force: bool, progress: Progress | None) -> None:
    done, total = 0, sum(output.size_bytes for output in outputs)
    for output in outputs:
        writer.add_tensor_info(
            output.name, output.source.shape, np.dtype(np.float32), output.size_bytes, raw_dtype=output.kind
        )
    with whole_file(path, force) as place:
        try:
            writer.write_header_to_file(path=place)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            assert writer.fout is not None
            (stream,) = writer.fout
            writer.write_padding(stream, stream.tell())
            for output in outputs:
                for chunk in output.source.chunks():
                    encoded = _encoded(chunk, output)
                    stream.write(encoded.data)
                    done += encoded.nbytes
                    if progress is not None:
                        progress(done, total)
                writer.write_padding(stream, output.size_bytes)
            writer.close()
        except OSError as error:
            if error.filename is not None and Path(error.filename) != place:
                raise
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None
        finally:
            for opened in writer.fout or []:
                with suppress(OSError):  # of a full disk, told already
                    opened.close()


def _encoded(chunk: FloatArray, output: _Output) -> npt.NDArray[np.uint8]:
    """Rows as the bytes of the file. Raises ConvertError, naming the tensor, for NaN and infinite values."""
    if not np.isfinite(chunk).all():
        raise ConvertError(f"the tensor {output.source.name!r} holds NaN or infinite values: the checkpoint is damaged")
    data = np.ascontiguousarray(chunk, dtype="<f4")
    if output.kind == Kind.F16:
        with np.errstate(over="ignore"):
            half = data.astype("<f2")
        if not np.isfinite(half).all():
            raise ConvertError(
                f"the tensor {output.source.name!r} holds values beyond the range of F16: use --outtype bf16 or f32"
            )
        return half.reshape(-1).view(np.uint8)
    if output.kind == Kind.F32:
        return data.reshape(-1).view(np.uint8)
    if output.kind == Kind.BF16:
        return _bf16(data, output.source.name)
    return np.ascontiguousarray(gguf.quantize(data, output.kind)).reshape(-1).view(np.uint8)


def _bf16(data: FloatArray, name: str) -> npt.NDArray[np.uint8]:
    """Finite float32 rounded to the nearest BF16, ties to even: the bits of ``gguf.quantize``, faster."""
    bits = data.reshape(-1).view("<u4")
    lowest_kept = (bits >> 16) & 1
    lowest_kept += 0x7FFF
    lowest_kept += bits
    rounded = (lowest_kept >> 16).astype("<u2")
    if ((rounded & 0x7F80) == 0x7F80).any():
        raise ConvertError(f"the tensor {name!r} holds values beyond the range of BF16: use --outtype f32")
    return rounded.view(np.uint8)
