"""What brings a session back toward its source."""

from acclimate.adapters.restoration.fisher import FisherPull

__all__ = ["FisherPull"]
