"""Proves on a running daemon that nothing of a message is kept: `python -m bouncerd.fakes.privacy`.

Random words, the canaries, go into everything that is content or secret; then every way to
succeed and to fail that we know is gone, and whatever the daemon has left anywhere is searched.
"""
