"""RFC 7143: the iSCSI target. Protocol without I/O; `server.py` alone touches sockets."""
