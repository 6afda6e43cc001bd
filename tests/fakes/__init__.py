"""Stand-ins for services that cannot run here, each written from the upstream source that it names."""
