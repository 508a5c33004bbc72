"""arrayd: one process is one disk array that hosts reach by iSCSI."""

__version__ = "0.1.0"
