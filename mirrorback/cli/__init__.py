"""The command line: commands, what they print, JSON, exit codes."""
