"""The use cases: what is judged, how one component is judged, and all of them together."""
