"""Torch modules of the models that samonnx compiles; parameter names are those of the released checkpoints."""
