"""The admission webhook that makes host networking safe: a pure mutation of pods, the review around it, an HTTPS app."""
