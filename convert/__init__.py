"""Converters: run from a checkout (``python convert/to_gguf.py``), installed as ``rim_edge.convert``."""
