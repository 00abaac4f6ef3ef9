"""Training losses: OSTrack's tracking loss, and CompressTracker's prediction guidance and feature mimicking."""
