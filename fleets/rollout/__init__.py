"""New versions by steps: a second fleet beside the old one, watched, promoted or taken back. Sessions are never ended."""
