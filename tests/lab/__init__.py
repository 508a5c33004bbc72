"""The lab: the real initiators, file systems and conformance tests that the suite runs against a real daemon.

One concern a file: ``daemon`` runs arrayd, ``kernel`` and ``initramfs`` make a Linux guest that ``guest`` boots and
drives, ``openiscsi`` is the initiator in it, ``fuse`` shows a LUN as a local disk, ``conformance`` runs and scores
libiscsi's suite, ``pdu``, ``connection`` and ``initiator`` are an initiator that can also misbehave. ``parts`` names
what a machine lacks.
"""
