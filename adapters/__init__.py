"""The algorithms of test-time adaptation, in NumPy, vectorised over sessions.

Nothing here does I/O, reads a clock, starts a thread or logs; randomness comes from a generator passed in.
Shapes use these letters: S sessions, B rows of a batch, P adaptable parameters, Q statistics, C classes.
"""
