"""mirrorback: one current mirror, dated folders of hard links beside it.

The rooms: `cli` (commands) uses `engine` (use cases), which uses `plan`
(decisions) and `store` (bytes on the drive); all use `model` and `errors`.
"""

__version__ = "0.1.0"
