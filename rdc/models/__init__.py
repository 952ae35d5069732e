"""Codecs and the components that compose them."""
