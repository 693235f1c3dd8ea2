"""Decisions: pure functions, without a disk, a clock or a database."""
