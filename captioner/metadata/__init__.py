"""Alt text in picture files, as XMP: in a sidecar beside the picture, or in its own file without touching a pixel."""

from captioner.metadata.files import embed, read, read_embedded, read_sidecar, sidecar_of, write_sidecar

__all__ = ["embed", "read", "read_embedded", "read_sidecar", "sidecar_of", "write_sidecar"]
