"""Graphs under ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from captioner.engines import Array
from captioner.engines.graph_engine import Parts

# Else it notes an id of the user and reports to its maker; once it is imported, it is too late to say no.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

PRECISIONS = ("fp32",)


class OnnxRuntimeGraph:
    """A graph in a session of ONNX Runtime, on the CPU.

    Args:
        path: of an ONNX file.
        threads: that a call may use.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors alone
        # By default idle threads go on asking for work, and those of the encoder disturb the decoder.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self._outputs = [value.name for value in self._session.get_outputs()]

    def __call__(self, values: Mapping[str, Array]) -> Parts:
        """See :class:`captioner.engines.graph_engine.Graph`."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(values)), strict=True))
