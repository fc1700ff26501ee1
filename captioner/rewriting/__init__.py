"""Exported graphs made cheaper to compute. Needs the package onnx, as exporting does."""
