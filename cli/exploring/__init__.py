"""Looking at what a store holds: ``embed search``, ``embed audit``, and what they print."""
