"""A language model whose sessions learn real texts that come with any Python."""
