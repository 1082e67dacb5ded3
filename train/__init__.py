"""Training of RiM models: problems, tokenizer, model, the paper's two-stage curriculum, export and restore."""
