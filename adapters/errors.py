"""What can be wrong with the arrays and names that reach the algorithms.

AdapterError
├── LayoutError        an array does not fit the layout it is said to have
├── ManifestError      a bundle manifest is malformed, or of another version
└── RecipeError        an unknown recipe, or a recipe parameter outside its range
"""


class AdapterError(ValueError):
    """Base of every error raised by `acclimate.adapters`; the message names field, value and fix."""


class LayoutError(AdapterError):
    """An array's shape or dtype does not fit the layout that describes it."""


class ManifestError(AdapterError):
    """A bundle manifest misses a field, has one of the wrong type, or is of an unknown format version."""


class RecipeError(AdapterError):
    """No recipe of this name exists, or one of its parameters is unknown or out of range."""
