"""The benchmark: arrayd beside tgt, in turn, on the same work, until an interval decides (``scripts/bench``).

``rows`` says what is measured and what is claimed; ``target_arrayd`` and ``target_tgt`` start the targets on the files
of ``backing``; ``generator`` builds and runs the load generator (``load/``, in C); ``contest`` takes the runs in turn;
``statistics`` decides; ``report`` prints, with the ``machine`` named.
"""
