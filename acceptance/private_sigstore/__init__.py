"""A complete private Sigstore: certificate authority, logs, timestamps, TUF repository.

Everything is real: keys, certificates, a Merkle tree that grows. Nothing is
taken from the code under test, so that a mistake there cannot agree with
itself here.
"""
