"""Weights from other frameworks: files of torch, in the layouts of several projects, and of safetensors."""
