"""Replication: pairs of volumes on two arrays, and the journals that keep the order of their writes (figures 10-21).

`statuses.py` is the table of pair statuses: what each is, what follows on what, and what is refused. `meetings.py` says
what two sides make of it that see each other again, `exit_codes.py` what a host's verbs answer, and `status_page.py`
shows all of it as text. None of these does I/O or knows a clock. `journal/` keeps the writes of a consistency group,
`bitmap/` which regions of a volume differ from the other side's while no journal follows it. `pairs.py` is the pair
management table (figure 10), `group_rows.py` its rows, and `transitions.py` what becomes of them.

`group.py` is such a group at the primary side, `journaled.py` one of its P-VOLs, `writes.py` what is on its way through
them, `durable.py` who waits for a sync, and `redo.py` what comes after a restart.
"""
