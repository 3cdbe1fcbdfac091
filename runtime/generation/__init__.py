"""Serving language models: texts are generated, sessions learn from texts, texts are scored."""
