"""Servers conforma can be: a registry on a loopback socket."""
