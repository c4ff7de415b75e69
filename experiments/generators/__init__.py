"""Generators trained on public images, as files that attacks read: ``fl-sim train-prior --kind gan|decoder|vaegan``."""
