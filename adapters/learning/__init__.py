"""Learning at test time for language models: objectives, what a lesson is made of, and recipes. NumPy, no clock."""
