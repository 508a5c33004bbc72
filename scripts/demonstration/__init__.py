"""What `scripts/demo` shows: `story` tells it, `volumes` writes and reads, `commands` has arrays carry out commands."""
