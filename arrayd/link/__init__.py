"""The link between arrays: the patent's remote communications interface (202) and second network (60, figure 1).

One TCP connection a pair of arrays, in both directions. It carries requests and their answers as bytes: what they mean
is for the rooms that use it. `frames.py` has the format, `handshake.py` who may talk, `channel.py` requests and
answers over any number of connections; none of these does I/O. `transport.py` has the sockets, `peers.py` dials,
admits, and keeps one channel a peer.
"""
