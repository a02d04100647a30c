"""Codestreams -> raw samples, every one of them decoded, or a refusal; the only room that knows imagecodecs."""
