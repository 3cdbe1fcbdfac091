"""Where sessions will be kept beyond the process; see `docs/decisions/` for what is not here yet."""
