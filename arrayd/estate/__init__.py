"""What the array has, and how that changes while it runs: volumes, the LUN map (figure 3), its command device
management table (501, figure 5) and its connection table (3601, figure 36).

Rows come from the configuration ("file") and from commands ("command", kept in the tables). `rows.py` merges them,
`conflicts.py` says what stands between them, `ledger.py` makes one change at a time. `volumes.py`, `luns.py`,
`connections.py` and `devices.py` each do what their rows ask for; `fronts.py` says what hosts see of each volume, and
`uses.py` asks which may not change; `estate.py` is all of it, and takes in a configuration that changed.

A change takes `save`, which commits its rows together with whatever else its caller wants committed. What can fail is
done before, and undone if `save` raises; what comes after cannot fail, or is made good at the next start.
"""
