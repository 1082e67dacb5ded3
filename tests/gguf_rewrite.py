"""A GGUF file once more, with other tensors, keys or alignment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt


def rewritten(
    source: Path,
    target: Path,
    *,
    alignment: int = 32,
    tensors_per_part: int = 0,
    tensors: Mapping[str, npt.NDArray[np.float32] | None] | None = None,
    metadata: Mapping[str, int] | None = None,
) -> Path:
    """Write ``source`` to ``target`` and return that, or the first part.

    Args:
        alignment: of the tensors' data, named in the file where it is not 32.
        tensors_per_part: write several files, ``NAME-00001-of-00003.gguf`` and so on.
        tensors: tensors to add or replace; None takes one away.
        metadata: numbers to add, as u32.
    """
    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(None, architecture, split_max_tensors=tensors_per_part)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer.add_key_value(
                key, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None
            )
    for key, number in (metadata or {}).items():
        writer.add_uint32(key, number)
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    changed = tensors or {}
    for tensor in reader.tensors:
        if tensor.name not in changed:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    for name, values in changed.items():
        if values is not None:
            writer.add_tensor(name, values)
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target if not tensors_per_part else min(target.parent.glob(f"{target.stem}-00001-of-*.gguf"))
