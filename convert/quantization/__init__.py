"""Quantizing a GGUF file with libllama's quantizer, and the importance matrix that guides it."""
