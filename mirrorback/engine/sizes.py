"""SIZE as people write it, for the options that take one."""

from __future__ import annotations

from mirrorback.plan.sizes import parse_size

__all__ = ["parse_size"]
