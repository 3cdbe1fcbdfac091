"""Graph rewrites, one per file; each says what it requires and what it ensures."""
