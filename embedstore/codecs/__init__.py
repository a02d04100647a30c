"""Codestreams -> raw samples, every one decoded, or a refusal; the only room that knows imagecodecs and simplejpeg."""
