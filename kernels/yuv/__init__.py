"""RGB pictures to the planes that a video encoder takes."""
