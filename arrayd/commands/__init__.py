"""Commands: what a host, or another array, has this array do with nothing but WRITE and READ (figures 5-9, 25-41)."""
