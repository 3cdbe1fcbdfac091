"""Sessions: who owns which row, in which state, and what each has been through."""
