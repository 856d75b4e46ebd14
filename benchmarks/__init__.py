"""Scenarios that load the real parts of livefeed and measure them: `livefeed bench`."""
