//! The OCI image: layer order, packing, configuration and manifest.
