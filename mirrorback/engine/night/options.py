"""The options of a configured backup, as `backup` takes them."""

from __future__ import annotations

from mirrorback.engine.backup_options import BackupOptions
from mirrorback.engine.night.configuration import Configured, expanded
from mirrorback.plan.configuration import Count
from mirrorback.plan.retention import read_policy


def options(backup: Configured, repository_id: str | None = None) -> BackupOptions:
    """What is configured; `repository_id` is of the repository that is meant, and no other.
    Raises UsageError."""
    return BackupOptions(
        repository_id=repository_id or backup.repository_id,
        checksum=backup.checksum,
        always=backup.always,
        allow_empty_source=backup.allow_empty_source,
        one_file_system=backup.one_file_system,
        source_snapshot=backup.source_snapshot,
        exclude=backup.exclude,
        exclude_from=tuple(expanded(name) for name in backup.exclude_from),
        exclude_caches=backup.exclude_caches,
        exclude_if_present=backup.exclude_if_present,
        exclude_larger_than=backup.exclude_larger_than,
        delta_min_size=backup.delta_min_size,
        large_files=backup.large_files,
        policy=read_policy(
            keep_last=_typed(backup.keep_last),
            keep_hourly=_typed(backup.keep_hourly),
            keep_daily=_typed(backup.keep_daily),
            keep_weekly=_typed(backup.keep_weekly),
            keep_monthly=_typed(backup.keep_monthly),
            keep_yearly=_typed(backup.keep_yearly),
            keep_within=backup.keep_within,
            time_machine=backup.time_machine,
            min_free=backup.min_free,
        ),
    )


def _typed(count: Count | None) -> str | None:
    return None if count is None else str(count)
