"""A journal: the writes to the volumes of one consistency group, in their order (figures 12 and 15).

`format.py` has the bytes on the disk and on their way to another array, `regions.py` the positions of figure 15 without
I/O; `batch.py` is what waits to be written, `superblocks.py` what a journal begins with, `reading.py` finds and reads
records; `journal.py` is one journal on a volume, `primary.py` and `auxiliary.py` what each of the two does. The room
knows nothing of pairs, links or commands.
"""

from arrayd.replication.journal.auxiliary import AuxiliaryJournal
from arrayd.replication.journal.format import Entry, FormatError, Kind, Record, Role
from arrayd.replication.journal.primary import PrimaryJournal
from arrayd.replication.journal.reading import JournalDamaged, JournalError, JournalFull
from arrayd.replication.journal.regions import AuxiliaryRegions, Position, PrimaryRegions, Size

__all__ = [
    "AuxiliaryJournal",
    "AuxiliaryRegions",
    "Entry",
    "FormatError",
    "JournalDamaged",
    "JournalError",
    "JournalFull",
    "Kind",
    "Position",
    "PrimaryJournal",
    "PrimaryRegions",
    "Record",
    "Role",
    "Size",
]
