"""Files of block data: the only room that reads, writes, syncs, frees or sends block data.

`file.py` is one open file, `cold.py` its reads that wait for the disk, `syncs.py` what makes its writes durable;
`opening.py` makes and locks it; `writeback.py` bounds what all files together have in the page cache; `kernel.py` has
the system calls that Python lacks.
"""

from arrayd.blockfile.file import BlockFile
from arrayd.blockfile.writeback import Writeback

__all__ = ["BlockFile", "Writeback"]
