"""Building blocks shared by tracker families."""
