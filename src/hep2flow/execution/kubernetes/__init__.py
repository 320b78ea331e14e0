"""RayJobs on Kubernetes: manifest, client, watcher, entry point, checks."""
