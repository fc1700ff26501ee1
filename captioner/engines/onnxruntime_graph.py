"""Graphs under ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from captioner.engines import Array
from captioner.engines.graph_engine import Parts

# Else it notes an id of the user and reports to its maker; once it is imported, it is too late to say no.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

EAGERNESS = 300  # microseconds: somewhat longer than a search takes between two steps
AS_ASKED = 1  # the number of a strategy in ONNX Runtime


def share_memory() -> None:
    """Give all sessions of this process one arena, which grows by what is asked for.

    By default each has its own, which doubles whenever it grows: that of a graph which was run once, for a large batch,
    then lies idle beside the others.
    """
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    settings = onnxruntime.OrtArenaCfg({"arena_extend_strategy": AS_ASKED})
    onnxruntime.create_and_register_allocator(place, settings)


share_memory()


class OnnxRuntimeGraph:
    """A graph in a session of ONNX Runtime, on the CPU.

    Args:
        path: of an ONNX file.
        threads: that a call may use.
        eager: whether the threads go on asking for work for a moment before they sleep: quicker where a call has many
            small parts, and the next one follows at once.
    """

    def __init__(self, path: Path, *, threads: int, eager: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors alone
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(eager)))
        if eager:
            options.add_session_config_entry("session.intra_op.spin_duration_us", str(EAGERNESS))
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_mem_pattern = False  # it keeps a block for each size of a batch that there has been
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def __call__(self, values: Mapping[str, Array], outputs: Sequence[str]) -> Parts:
        """See :class:`captioner.engines.graph_engine.Graph`."""
        return dict(zip(outputs, self._session.run(outputs, values), strict=True))
