"""All that decides a value or what fits, as pure functions: no torch, no process, no clock."""
