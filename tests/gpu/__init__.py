"""Tests of execution providers; those that need a GPU are skipped, with the reason, where there is none."""
