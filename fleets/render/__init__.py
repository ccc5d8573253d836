"""`warmfleet render`: from specs to Kubernetes manifests, with the checks that only a cluster needs."""
