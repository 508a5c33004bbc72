"""Virtual volumes (figures 3, 4 and 22): SCSI tasks for a logical unit of another array, carried over the link.

`formats.py` has what is carried. `near.py` is the end that a host is connected to; `far.py` is the end that has the
logical unit, or leads on to where it is.
"""
