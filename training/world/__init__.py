"""The demo world: drawn people of whom image, keypoints, charts, parts, eyes and identity are known exactly."""
