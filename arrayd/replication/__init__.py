"""Replication: pairs of volumes, their journals, copy, restore, swap and takeover (figures 10-21).

`statuses.py` is the table of pair statuses: what each is, what follows on what, and what is refused. `meetings.py` says
what two sides make of it that see each other again, `exit_codes.py` what a host's verbs answer, and `status_page.py`
shows all of it as text. None of these does I/O or knows a clock.
"""
