"""Bytes on the drive: trees, contents, the catalog, and the order in which they are written."""
