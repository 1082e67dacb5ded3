"""``rim-edge quantize``: the sweep over quantization types, and single quantized files (``convert/quantize.py``)."""

from __future__ import annotations

from rim_edge.convert.quantize import quantize

__all__ = ["quantize"]
