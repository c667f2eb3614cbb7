//! Shared builds: registries as binary caches.
