"""Pictures: boxes on frames, videos, tiles of frames."""
