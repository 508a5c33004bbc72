"""Every kind of thing a LUN can be, one file a kind, behind the interface of `volume.py`."""
