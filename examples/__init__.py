"""Runnable examples, each with its data, its model and its demo."""
