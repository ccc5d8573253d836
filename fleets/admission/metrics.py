"""Metrics of the admission webhook."""

from prometheus_client import Counter, Histogram

REVIEWS = Counter("warmfleet_admission_reviews_total", "Reviews answered, by outcome.", ["outcome"])
SECONDS = Histogram(
    "warmfleet_admission_seconds",
    "Time to answer a review.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25),
)
