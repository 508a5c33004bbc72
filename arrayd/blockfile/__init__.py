"""Files of block data: the only room that reads, writes, syncs, frees or sends block data.

`file.py` is one open file, `syncs.py` what makes its writes durable; `ring.py` waits for the disk, `threads.py` where
the kernel offers no ring, and `cold_read.py` is what both are asked for; `opening.py` makes files and locks them;
`writeback.py` bounds what all files have in the page cache; `kernel.py` has the system calls that Python lacks.
"""

from arrayd.blockfile.file import BlockFile
from arrayd.blockfile.opening import remove, rename, replace
from arrayd.blockfile.ring import Ring
from arrayd.blockfile.writeback import Writeback

__all__ = ["BlockFile", "Ring", "Writeback", "remove", "rename", "replace"]
