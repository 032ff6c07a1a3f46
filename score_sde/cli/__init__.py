"""The command line: flags, modes, exit statuses."""
