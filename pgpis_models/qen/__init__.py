"""QEN (query fusion and pose-masked attention): sizes, networks and inputs."""
