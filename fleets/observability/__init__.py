"""What is watched and how: the catalogue of metrics, rules and alerts, dashboards, and a configuration for Prometheus."""
