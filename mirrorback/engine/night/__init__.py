"""Every night, without being watched: configured backups, their runs, and what is told of them."""
