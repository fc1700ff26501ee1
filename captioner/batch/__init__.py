"""Offline captioning of folders, archives and lists: everything once, whatever happens in between."""
