"""Stand-ins for Apple, for Google and for Google's token endpoint: real servers, scriptable."""
