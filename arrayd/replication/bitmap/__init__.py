"""The differential bitmap of one volume of a pair: what its two sides differ in, while no journal follows it.

`format.py` has the bytes on the disk and on the way to the other array, `bits.py` the arithmetic of rows of bits;
`store.py` makes and finds a bitmap on a volume, `hot.py` is the log that makes a mark cheap, `taking.py` what is being
copied; `bitmap.py` puts it together, and says in which order things become durable. The room knows nothing of pairs.
"""

from arrayd.replication.bitmap.bitmap import Bitmap
from arrayd.replication.bitmap.format import REGION_BYTES, FormatError, Geometry
from arrayd.replication.bitmap.store import BitmapError
from arrayd.replication.bitmap.taking import Hold, Taken

__all__ = ["REGION_BYTES", "Bitmap", "BitmapError", "FormatError", "Geometry", "Hold", "Taken"]
