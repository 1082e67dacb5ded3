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
    tensors: Mapping[str, npt.NDArray[np.float32] | None] | None = None,
    metadata: Mapping[str, int] | None = None,
) -> Path:
    """Write ``source`` to ``target`` and return that.

    Args:
        alignment: of the tensors' data, named in the file where it is not 32.
        tensors: tensors to add or replace; None takes one away.
        metadata: numbers to add, as u32.
    """
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(None, str(reader.fields["general.architecture"].contents()))
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer.add_key_value(
                key, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None
            )
    for key, number in (metadata or {}).items():
        writer.add_uint32(key, number)
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    kept: dict[str, npt.NDArray[np.float32] | None] = {t.name: np.array(t.data) for t in reader.tensors}
    for name, values in {**kept, **(tensors or {})}.items():
        if values is not None:
            writer.add_tensor(name, values)
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
