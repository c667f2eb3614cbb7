//! Package configuration.
