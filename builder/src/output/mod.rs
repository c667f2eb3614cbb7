//! Where an image goes: tarball, OCI layout, container engines.
