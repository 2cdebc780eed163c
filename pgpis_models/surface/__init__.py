"""What lies on a body: DensePose, texture maps and faces."""
